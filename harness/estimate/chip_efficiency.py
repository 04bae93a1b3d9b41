"""Share of its peak that a chip reaches on large matrix products."""

from __future__ import annotations

from harness.estimate.clusters import Chip

PEAK_SHARES = {
    "A100": 0.80, "A800": 0.80, "H": 0.68, "GB": 0.70, "B": 0.70, "TPU": 0.85, "MI": 0.55, "V100": 0.75,
}  # fmt: skip
"""Share of the 16-bit peak that large products reach before any waiting, by the beginning of the chip's name.
Set before anything was fitted; MI, V100 and UNKNOWN_SHARE are assumed."""
UNKNOWN_SHARE = 0.6
"""Share of the peak of any other chip. Assumed."""
EXPERT_SHARE = 0.62
"""Factor on that share for the small grouped products of routed experts."""
LOW_PRECISION_SHARES = {"fp8": 0.8, "fp4": 0.5}
"""Factor on that share in 8 and 4 bits: casts, and products that stay wider. Assumed."""


def peak_share(chip: str) -> float:
    """Return the share of the 16-bit peak that a chip's large products reach, by the chip's name."""
    return next((share for name, share in PEAK_SHARES.items() if chip.startswith(name)), UNKNOWN_SHARE)


def matmul_flops_per_second(chip: Chip, precision: str) -> float:
    """Return the FLOP/s that large matrix products reach."""
    return chip.peak(precision) * peak_share(chip.name)
