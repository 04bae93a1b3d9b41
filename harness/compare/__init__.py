"""What a sweep means: two architectures compared honestly, with the error bars of their seeds.

`compare(path)` gives the verdict; the other names are its parts, over arrays. STEPS of a verdict:
reading -> align -> effects -> multiplier -> trend -> flags -> decide; `engine` joins them.
"""

from harness.compare.curves import compare_curves
from harness.compare.effects import NoiseFloor, paired_effect, welch_effect
from harness.compare.engine import compare
from harness.compare.library import store_library
from harness.compare.multiple import holm, sign_flip, smallest_p, tost
from harness.compare.multiplier import (
    ControlSlope,
    compute_multiplier,
    fit_ladder,
    horizon_slope,
    pooled_multiplier,
)
from harness.compare.power import plan_power
from harness.compare.results import Comparison, Decision, Effect, Multiplier, dumps, to_json
from harness.compare.sequential import SeedEProcess, SequentialTest
from harness.compare.surface import Surface, bootstrap_surface, fit_surface
from harness.compare.trajectory import trajectory_band
from harness.compare.trend import project, trend

__all__ = [
    "Comparison",
    "ControlSlope",
    "Decision",
    "Effect",
    "Multiplier",
    "NoiseFloor",
    "SeedEProcess",
    "SequentialTest",
    "Surface",
    "bootstrap_surface",
    "compare",
    "compare_curves",
    "compute_multiplier",
    "dumps",
    "fit_ladder",
    "fit_surface",
    "holm",
    "horizon_slope",
    "paired_effect",
    "plan_power",
    "pooled_multiplier",
    "project",
    "sign_flip",
    "smallest_p",
    "store_library",
    "to_json",
    "tost",
    "trajectory_band",
    "trend",
    "welch_effect",
]
