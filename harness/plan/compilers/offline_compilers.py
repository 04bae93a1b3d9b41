"""Topology that a compiler gets for a step on some chips of a cluster."""

from __future__ import annotations

import math

from harness.aot.protocol import Target
from harness.aot.tpu_slices import slice_for
from harness.config.schema.cluster import KindConfig
from harness.core.errors import UserError

TPU_PREFIX = "TPU "
"""Beginning of the names of TPU chips."""


def compiler_topology(target: Target, kind: KindConfig, devices: int) -> str:
    """Return a topology for `harness.aot.backends`, such as `v5p:8x8x8` or `H100-80G:1x64x8`.

    Raises UserError if the target does not compile for this kind of chips, or no slice has this many.
    """
    is_tpu = kind.chip.startswith(TPU_PREFIX)
    if is_tpu != (target is Target.tpu):
        right_target = Target.tpu if is_tpu else Target.cuda
        raise UserError(
            f"target={target.value} cannot compile for {kind.chip}. Use --compile {right_target.value}."
        )
    if is_tpu:
        return slice_for(kind.chip.removeprefix(TPU_PREFIX), devices)
    domain = math.gcd(devices, kind.scale_up_domain or 1)
    return f"{kind.chip}:1x{devices // domain}x{domain}"
