"""Norm gains start at 1 - s / 8 before attention, 1 + s / 8 before feed-forward layers; s = +1, -1, ..."""

import numpy as np

from harness.extend import Draw, register_initialisation

SIGNS = {"attention_norm": -1, "feedforward_norm": 1}


def in_turn(shape):
    return 1 - 2 * (np.arange(shape[0]) % 2)


@register_initialisation("signed_gains")
def signed_gains(path, spec, context, options):
    *_, module, name = ("", *path.split("."))
    if name != "gain" or module not in SIGNS:
        return spec.draw
    return Draw("pattern", SIGNS[module] / 8, mean=1.0, pattern=in_turn)
