"""Share of its peak that a chip reaches on large matrix products."""

from __future__ import annotations

from dataclasses import dataclass

PEAK_SHARES = {
    "A100": 0.80, "A800": 0.80, "H": 0.68, "GB": 0.70, "B": 0.70, "TPU": 0.85, "MI": 0.55, "V100": 0.75,
}  # fmt: skip
"""Share of the 16-bit peak that large products reach before any waiting, by the beginning of the chip's name.
Set before anything was fitted; MI, V100 and UNKNOWN_SHARE are assumed."""
UNKNOWN_SHARE = 0.6
"""Share of the peak of any other chip. Assumed."""
EXPERT_SHARE = 0.62
"""Factor on that share for the small grouped products of experts."""
LOW_PRECISION_SHARES = {"fp8": 0.8, "fp4": 0.5}
"""Factor on that share in 8 and 4 bits: casts, and products that stay wider. Assumed."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peak that a chip's large products reach in 16 bits, before any waiting."""

    dense: float
    experts: float
    """Share of the peak of routed experts' small grouped products."""


def chip_efficiency(chip: str) -> Efficiency:
    """Return the shares of a chip by its name."""
    share = next((share for name, share in PEAK_SHARES.items() if chip.startswith(name)), UNKNOWN_SHARE)
    return Efficiency(share, share * EXPERT_SHARE)
