"""What a sweep means: two architectures compared honestly, with the error bars of their seeds.

`compare(path)` gives the verdict of a sweep, `compare_curves(tables)` that of polars frames or files; the
other names are their parts, over arrays. Where a part takes an array, anything that numpy can read
as one will do, a column of a polars frame among them: `paired_effect(pairs["mha"], pairs["hybrid"])`
after `frame.pivot("variant", index="seed")`; a null there counts as a loss that is not finite.
STEPS of a verdict: reading -> align -> effects -> multiplier -> trend -> flags -> decide; `engine`
joins them.
"""

from harness.compare.as_json import dumps, to_json
from harness.compare.curves import compare_curves
from harness.compare.effects import NoiseFloor, paired_effect, welch_effect
from harness.compare.engine import compare
from harness.compare.estimates import Effect, Multiplier
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
from harness.compare.results import Comparison
from harness.compare.sequential import SeedEProcess, SequentialTest
from harness.compare.surface import Surface, bootstrap_surface, fit_surface
from harness.compare.trajectory import trajectory_band
from harness.compare.trend import project, trend
from harness.compare.tuning import Optimum, find_optimum, read_tuning
from harness.compare.verdicts import Decision

__all__ = [
    "Comparison",
    "ControlSlope",
    "Decision",
    "Effect",
    "Multiplier",
    "NoiseFloor",
    "Optimum",
    "SeedEProcess",
    "SequentialTest",
    "Surface",
    "bootstrap_surface",
    "compare",
    "compare_curves",
    "compute_multiplier",
    "dumps",
    "find_optimum",
    "fit_ladder",
    "fit_surface",
    "holm",
    "horizon_slope",
    "paired_effect",
    "plan_power",
    "pooled_multiplier",
    "project",
    "read_tuning",
    "sign_flip",
    "smallest_p",
    "store_library",
    "to_json",
    "tost",
    "trajectory_band",
    "trend",
    "welch_effect",
]
