"""False positives on real A/A data: arms drawn at random from runs of one and the same config."""

from __future__ import annotations

import numpy as np

from harness.compare.stats.paired_effects import welch_effect
from harness.compare.stats.sequential import LookOutcome, SequentialTest
from tests.compare import validation
from tests.compare.simulate import Rate

ARM = 5
LOOKS = 5


def false_positives(reps: int, rng: int = 0) -> tuple[Rate, Rate]:
    """At the end (Welch, p < .05), and at any of the last looks under alpha spending."""
    records, random = validation.null_records(2 * ARM), np.random.default_rng(rng)
    at_end = any_look = 0
    for draw in range(reps):
        curves = records[draw % len(records)]
        chosen = random.permutation(len(curves))
        a, b = curves[chosen[:ARM], -LOOKS:], curves[chosen[ARM : 2 * ARM], -LOOKS:]
        effects = [welch_effect(a[:, look], b[:, look]) for look in range(a.shape[1])]
        test = SequentialTest(len(effects))
        any_look += LookOutcome.efficacy in [test.add_look(effect) for effect in effects]
        at_end += effects[-1].p is not None and effects[-1].p < 0.05
    return Rate(at_end, reps), Rate(any_look, reps)
