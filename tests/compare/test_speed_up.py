"""Speed-up at equal device-seconds: the timed ratio and ln s, by simulation with small counts and exactly."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from harness.compare.inputs.step_timing import read_step_timing
from harness.compare.stats.speed_up import (
    MAX_QUADS,
    MIN_QUADS,
    TimingRatio,
    effective_speed_up,
    next_quads,
    timing_ratio,
    visit_statistic,
)
from tests.compare import simulate_timing as simulate
from tests.compare.numbers import exactly, made

DISTURBANCES = [simulate.heavy, simulate.autoregressive, simulate.drifting, simulate.clock_change]


@pytest.mark.parametrize("quads", [4, 8])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_coverage_of_the_speed_up(n, quads):
    for sd in (0.01, 0.03):
        assert 0.93 <= simulate.speed_up_coverage(1500, n, quads, sd).value <= 0.98


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("quads", [4, 8])
def test_coverage_on_a_machine_that_changes(disturbance, quads):
    assert simulate.ratio_coverage(1500, disturbance(0.01), quads).value >= 0.92
    assert simulate.ratio_coverage(1500, disturbance(0.03), quads).value >= 0.92


def test_coverage_of_a_pass_that_grows():
    for sd in (0.005, 0.01, 0.02):
        coverage, quads = simulate.grown_coverage(1000, simulate.white(sd))
        assert coverage.value >= 0.89
        assert MIN_QUADS <= quads <= MAX_QUADS


def test_the_ratio_by_hand():
    visits = np.log([[1.0, 1.1, 1.2, 1.3], [1.0, 1.2, 1.2, 1.0], [0.9, 1.0, 1.1, 1.0]])
    quads = [(row[1] + row[2] - row[0] - row[3]) / 2 for row in visits]
    ratio = timing_ratio(visits)
    low, high = stats.t.interval(0.95, 2, np.mean(quads), stats.sem(quads))
    assert ratio.log_ratio == exactly(np.mean(quads))
    assert (ratio.low, ratio.high) == (exactly(low), exactly(high))
    assert (ratio.quads, ratio.df, ratio.sd) == (3, 2, exactly(np.std(quads, ddof=1)))


def test_a_linear_drift_cancels_and_swapping_mirrors():
    visits = np.random.default_rng(0).normal(size=(4, 4))
    ratio = timing_ratio(visits)
    drift = timing_ratio(visits + 0.3 * np.arange(16).reshape(4, 4))
    assert (drift.log_ratio, drift.se) == (exactly(ratio.log_ratio), exactly(ratio.se))
    swapped = timing_ratio(visits[:, [1, 0, 3, 2]])
    assert (swapped.log_ratio, swapped.se) == (exactly(-ratio.log_ratio), exactly(ratio.se))
    assert swapped.low == exactly(-ratio.high)


def test_one_quad_has_no_interval():
    ratio = timing_ratio([[0.0, 0.1, 0.1, 0.0]])
    assert (ratio.log_ratio, ratio.se, ratio.half_width) == (exactly(0.1), None, math.inf)
    assert not ratio.noisy
    with pytest.raises(ValueError, match="quads of four finite numbers"):
        timing_ratio([])
    with pytest.raises(ValueError, match="quads of four finite numbers"):
        timing_ratio([[0.0, math.nan, 0.1, 0.0]])


def test_a_visit_ignores_bursts_of_a_neighbour():
    rng = np.random.default_rng(0)
    a, b = ([simulate.bursts(rng, 20, 0.3, factor) for _ in range(2000)] for factor in (1.15, 1.3))
    bias = np.mean([visit_statistic(x) for x in b]) - np.mean([visit_statistic(x) for x in a])
    by_mean = np.mean([np.log(x.mean()) for x in b]) - np.mean([np.log(x.mean()) for x in a])
    assert abs(bias) < 0.006
    assert by_mean > 0.03


def test_quads_double_until_the_interval_is_narrow():
    wide = TimingRatio(0.0, 0.1, 3.0, 4, 0.2)
    assert next_quads(wide) == 4
    assert next_quads(dataclasses.replace(wide, quads=16)) == 16
    assert next_quads(dataclasses.replace(wide, quads=MAX_QUADS)) == 0
    assert next_quads(dataclasses.replace(wide, se=0.001)) == 0
    assert next_quads(TimingRatio(0.0)) == MIN_QUADS


K = made(0.05, 0.01, df=4.0)


def test_at_equal_step_times_it_is_k():
    s = effective_speed_up(K, timing_ratio([[0.3] * 4] * 4))
    assert s.log_se is not None
    assert (s.k, s.log_se, s.df, s.low, s.high, s.p) == tuple(
        map(exactly, (K.k, K.log_se, K.df, K.low, K.high, K.p))
    )
    assert (s.slope, s.n) == (K.slope, K.n)


def test_variances_add():
    ratio = TimingRatio(0.02, 0.03, 3.0, 4, 0.06)
    s = effective_speed_up(K, ratio)
    variances = np.array([0.01**2, 0.03**2])
    df = variances.sum() ** 2 / (variances**2 / [4, 3]).sum()
    half = stats.t.ppf(0.975, df) * math.sqrt(variances.sum())
    assert (s.log_k, s.df) == (exactly(0.03), exactly(df))
    assert (s.log_low, s.log_high) == (exactly(0.03 - half), exactly(0.03 + half))


def test_without_an_interval_of_either_there_is_none():
    s = effective_speed_up(K, TimingRatio(0.02))
    assert (s.log_k, s.low, s.p) == (exactly(0.03), None, None)
    alone = effective_speed_up(dataclasses.replace(K, log_se=None), TimingRatio(0.02, 0.03, 3.0))
    assert (alone.log_k, alone.low) == (exactly(0.03), None)
    assert effective_speed_up(dataclasses.replace(K, k=None, log_k=None), TimingRatio(0.02)).k is None


VISITS = [[0.0, 0.1, 0.1, 0.0], [0.0, 0.2, 0.2, 0.0]]
RECORD = {
    "scale": "m",
    "variants": {"mha": {"step_seconds": 1.0}, "short": {"step_seconds": 1.2}},
    "visits": {"short": VISITS},
    "others_share": 0.01,
}


def test_the_file_gives_the_ratio_of_its_visits():
    timing = read_step_timing(RECORD)
    assert timing.ratios == {"short": timing_ratio(VISITS)}
    assert (timing.scale, timing.step_seconds) == ("m", {"mha": 1.0, "short": 1.2})
    assert timing.ratio_text("short").startswith("short: 1.162 times the control's step time [")


def test_a_noisy_ratio_decides_nothing_on_a_shared_host_only():
    assert timing_ratio(VISITS).noisy
    assert not read_step_timing(RECORD).is_noisy("short")
    for share in (0.2, None):
        shared = read_step_timing(RECORD | {"others_share": share})
        assert shared.is_noisy("short")
        assert "NOISY_TIMING" in shared.ratio_text("short")
    calm = RECORD | {"others_share": 0.2, "visits": {"short": [[0.0, 0.1, 0.1, 0.0]] * 4}}
    assert not read_step_timing(calm).is_noisy("short")


def test_a_file_of_an_earlier_version_has_a_ratio_without_interval():
    old = {name: value for name, value in RECORD.items() if name != "visits"}
    timing = read_step_timing(old, "mha")
    assert timing.ratios["short"].log_ratio == exactly(math.log(1.2))
    assert timing.ratios["short"].se is None
    assert not read_step_timing(old, "elsewhere").ratios


@pytest.mark.parametrize(
    "visits",
    [3, {"short": 4}, {"short": [3]}, {"short": [[0.0, 1.0]]}, {"short": [[0, 1, 1, "x"]]}, {"short": []}],
)
def test_damaged_visits_are_no_ratio(visits):
    assert read_step_timing(RECORD | {"visits": visits}).ratios == {}
    assert read_step_timing([1]).scale == ""
