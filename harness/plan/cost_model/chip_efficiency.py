"""The share of its peak that a chip reaches on large matrix products."""

from __future__ import annotations

from harness.plan.cost_model.roofline import Efficiency

PEAK_SHARES = {
    "A100": 0.80,
    "A800": 0.80,
    "H": 0.68,
    "GB": 0.70,
    "B": 0.70,
    "TPU": 0.85,
    "MI": 0.55,
    "V100": 0.75,
}
"""Of the peak of a chip, by how its name begins: what large 16-bit products reach before any waiting. Set
before anything was fitted; those of MI, V100 and of any other chip (UNKNOWN_SHARE) assumed."""


EXPERT_SHARE = 0.62
"""Of that, what small grouped products of experts reach."""


LOW_PRECISION_SHARES = {"fp8": 0.8, "fp4": 0.5}
"""Of the peak in so few bits as against the share in 16: casts, and products that stay wider. Assumed."""


UNKNOWN_SHARE = 0.6


def chip_efficiency(chip: str) -> Efficiency:
    """By the chip's name."""
    share = next((share for name, share in PEAK_SHARES.items() if chip.startswith(name)), UNKNOWN_SHARE)
    return Efficiency(share, share * EXPERT_SHARE, LOW_PRECISION_SHARES)
