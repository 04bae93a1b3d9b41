"""Comparison of architectures, with error bars over seeds.

`compare(path)` returns the verdict of a sweep, `compare_curves(tables)` that of polars frames or files. The
other names are the statistics that they use, over arrays. An array argument may be anything that numpy
converts, such as a polars column: `paired_effect(pairs["mha"], pairs["hybrid"])` after
`frame.pivot("variant", index="seed")`. A null counts as a loss that is not finite.

Steps of a verdict (joined in `judge`): inputs.run_records -> inputs.pairing -> stats.paired_effects ->
stats.compute_multiplier -> stats.scale_trend -> verdict.flags -> verdict.decide.
"""

from harness.compare.compare_curves import compare_curves
from harness.compare.inputs.lr_tuning import Optimum, find_optimum, read_tuning
from harness.compare.inputs.noise_floor import store_library
from harness.compare.judge import compare
from harness.compare.results.comparison import Comparison
from harness.compare.results.to_json import dumps, to_json
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.across_scales import AcrossScales, across_scales
from harness.compare.stats.bet import Bet, Drift, bet_at
from harness.compare.stats.block_variance import SeedBlock, block_effect, seed_block
from harness.compare.stats.compute_multiplier import compute_multiplier, pooled_multiplier
from harness.compare.stats.control_slope import ControlSlope, fit_ladder, horizon_slope
from harness.compare.stats.estimates import Effect, Multiplier
from harness.compare.stats.heterogeneity import heterogeneity_p
from harness.compare.stats.multiple_testing import holm, sign_flip, smallest_p, tost
from harness.compare.stats.paired_effects import NoiseFloor, paired_effect, trajectory_band, welch_effect
from harness.compare.stats.power import plan_power
from harness.compare.stats.scale_trend import project, trend
from harness.compare.stats.scaling_law import ScalingLaw, bootstrap_scaling_law, fit_scaling_law
from harness.compare.stats.sequential import SeedEProcess, SequentialTest
from harness.compare.stats.speed_up import TimingRatio, effective_speed_up, timing_ratio

__all__ = [
    "AcrossScales",
    "Bet",
    "Comparison",
    "ControlSlope",
    "Decision",
    "Drift",
    "Effect",
    "Multiplier",
    "NoiseFloor",
    "Optimum",
    "ScalingLaw",
    "SeedBlock",
    "SeedEProcess",
    "SequentialTest",
    "TimingRatio",
    "across_scales",
    "bet_at",
    "block_effect",
    "bootstrap_scaling_law",
    "compare",
    "compare_curves",
    "compute_multiplier",
    "dumps",
    "effective_speed_up",
    "find_optimum",
    "fit_ladder",
    "fit_scaling_law",
    "heterogeneity_p",
    "holm",
    "horizon_slope",
    "paired_effect",
    "plan_power",
    "pooled_multiplier",
    "project",
    "read_tuning",
    "seed_block",
    "sign_flip",
    "smallest_p",
    "store_library",
    "timing_ratio",
    "to_json",
    "tost",
    "trajectory_band",
    "trend",
    "welch_effect",
]
