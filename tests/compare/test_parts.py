"""Each part against an independent reference, a hand-made number, or a property that it must have."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from harness.compare import distributions, effects, multiple, multiplier, power, sequential, surface
from harness.compare.as_json import to_json
from harness.compare.estimates import Estimand, Slope
from harness.compare.library import noise_floor
from harness.compare.trajectory import trajectory_band
from harness.compare.trend import project, trend
from harness.compare.verdicts import Direction
from tests.compare import validation
from tests.compare.synthetic import surface as truth

RNG = np.random.default_rng(0)
A, B = RNG.normal(3.0, 0.01, 7), RNG.normal(2.99, 0.01, 7)
losses = st.lists(st.floats(1.0, 10.0), min_size=4, max_size=9)


def exactly(value):
    return pytest.approx(value, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_paired_t_is_scipys(n):
    ours, theirs = effects.paired_effect(A[:n], B[:n]), scipy.stats.ttest_rel(B[:n], A[:n])
    interval = theirs.confidence_interval(0.95)
    assert (ours.p, ours.df, ours.low, ours.high) == exactly(
        (theirs.pvalue, theirs.df, interval.low, interval.high)
    )
    assert ("LOW_DF" in ours.flags) == (n < 4)


def test_welch_is_scipys():
    ours, theirs = effects.welch_effect(A[:4], B), scipy.stats.ttest_ind(B, A[:4], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (ours.p, ours.df, ours.low, ours.high) == exactly(
        (theirs.pvalue, theirs.df, interval.low, interval.high)
    )
    assert "unpaired" in ours.method


def test_holm_is_statsmodels():
    p = [0.001, 0.04, 0.03, 0.2, 0.012]
    assert multiple.holm(p) == exactly(list(multipletests(p, method="holm")[1]))


def test_holm_counts_what_is_missing_and_its_levels_agree():
    assert multiple.holm([0.01, None, None]) == [pytest.approx(0.03), None, None]
    assert multiple.holm([0.01], family=4) == [pytest.approx(0.04)]
    p = [0.001, 0.02, 0.03, 0.2]
    rejected = [value < 0.05 for value in multiple.holm(p)]
    assert rejected == [value < level for value, level in zip(p, multiple.holm_levels(p), strict=True)]


def test_newey_west_is_statsmodels_and_is_never_a_population_statement():
    d = np.cumsum(RNG.normal(size=200)) * 0.01
    band = trajectory_band(d, lags=6)
    theirs = sm.OLS(d, np.ones_like(d)).fit(cov_type="HAC", cov_kwds={"maxlags": 6})
    assert (band.mean, band.se) == exactly((theirs.params[0], theirs.bse[0]))
    assert (band.p, band.estimand) == (None, Estimand.trajectory_only)


@pytest.mark.parametrize("table", [(3, 9, 0, 9), (1, 3, 2, 7), (0, 5, 0, 5), (5, 5, 0, 5)])
def test_fisher_is_scipys(table):
    hits, n, other, m = table
    theirs = scipy.stats.fisher_exact([[hits, n - hits], [other, m - other]]).pvalue
    assert distributions.fisher_exact(*table) == exactly(theirs)


def test_tails_are_scipys():
    for t, df in itertools.product([0.0, 0.3, 2.1, 40.0, -3.0], [1, 2.5, 30, math.inf]):
        dist = scipy.stats.t(df) if math.isfinite(df) else scipy.stats.norm
        assert distributions.t_two_sided(t, df) == exactly(2 * dist.sf(abs(t)))
        assert distributions.t_above(t, df) == exactly(dist.sf(t))
    assert distributions.f_above(2.3, 6, 18) == exactly(scipy.stats.f.sf(2.3, 6, 18))
    theirs = scipy.stats.binomtest(3, 40).proportion_ci(0.95, "exact")
    assert distributions.clopper_pearson(3, 40) == exactly((theirs.low, theirs.high))


def test_tost_is_statsmodels():
    d = RNG.normal(0.001, 0.002, 9)
    found = effects.effect_of(d)
    theirs = sm.stats.DescrStatsW(d).ttost_mean(-0.004, 0.004)[0]
    assert multiple.tost(found.mean, found.se, found.df, 0.004) == exactly(theirs)


def test_sign_flip_is_the_whole_enumeration():
    d = [np.array([0.3, -0.1, 0.2]), np.array([0.5, 0.4])]
    flat = np.concatenate([d[0] / 3, d[1] / 2])
    sums = [abs(np.dot(signs, flat)) for signs in itertools.product([-1, 1], repeat=5)]
    assert multiple.sign_flip(d) == pytest.approx(np.mean(np.array(sums) >= abs(flat.sum()) - 1e-12))


@pytest.mark.parametrize(("pairs", "smallest"), [(3, 0.25), (5, 0.0625), (9, 0.00390625)])
def test_smallest_attainable_p(pairs, smallest):
    assert multiple.smallest_p(pairs) == smallest
    assert multiple.sign_flip([np.ones(pairs)]) == smallest


def test_sign_flip_of_many_pairs_is_drawn_and_agrees_with_its_limit():
    d = RNG.normal(0.3, 1.0, 60)
    limit = math.erfc(abs(d.sum()) / math.sqrt(2 * (d**2).sum()))
    assert multiple.sign_flip([d]) == pytest.approx(limit, abs=0.02)


def test_one_pair_never_gets_an_interval_or_a_p():
    found = effects.paired_effect([3.0], [2.0])
    assert (found.mean, found.low, found.high, found.p, found.df) == (-1.0, None, None, None, None)
    assert found.estimand is Estimand.trajectory_only


def test_moderated_variance_by_hand():
    floor = effects.NoiseFloor("s", 0.002, 10)
    d = np.array([0.001, 0.003, 0.002])
    found = effects.effect_of(d, floor=floor)
    variance = (10 * 0.002**2 + 2 * d.var(ddof=1)) / 12
    assert (found.df, found.se) == exactly((12, math.sqrt(variance / 3)))
    assert effects.effect_of(np.append(d, 0.004), floor=floor).method == "paired t"


def test_variance_mismatch_is_seen():
    floor = effects.NoiseFloor("s", 0.001, 40)
    noisy = [RNG.normal(0, 0.003, 3) for _ in range(4)]
    quiet = [RNG.normal(0, 0.0005, 3) for _ in range(4)]
    assert effects.variance_mismatch(noisy, [floor] * 4)
    assert not effects.variance_mismatch(quiet, [floor] * 4)
    assert effects.variance_mismatch([d / 30 for d in quiet], [floor] * 4), "pairs that share their start"
    assert not effects.variance_mismatch(noisy, [None] * 4)


@given(losses)
@settings(max_examples=40, deadline=None)
def test_metamorphic(values):
    a = np.array(values)
    b = a + np.random.default_rng(len(values)).normal(0, 0.1, a.size)
    found = effects.paired_effect(a, b)
    swapped = effects.paired_effect(b, a)
    assert (found.mean, found.low, found.high, found.p) == (
        -swapped.mean, -swapped.high, -swapped.low, swapped.p,
    )  # fmt: skip
    shifted = effects.paired_effect(a + 2.0, b + 2.0)
    assert (shifted.mean, shifted.p) == pytest.approx((found.mean, found.p), rel=1e-6, abs=1e-12)
    order = np.random.default_rng(1).permutation(a.size)
    mixed = effects.paired_effect(a[order], b[order])
    assert (mixed.mean, mixed.p) == pytest.approx((found.mean, found.p), rel=1e-9)


def test_equal_runs_are_zero_and_an_equal_shift_is_not_believed():
    same = effects.paired_effect(A, A)
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert "CORRELATION_IMPLAUSIBLE" in same.flags
    shifted = effects.paired_effect(A, A + 0.25)
    assert (shifted.p, shifted.low) == (None, None)
    assert "CORRELATION_IMPLAUSIBLE" in shifted.flags


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_losses_give_a_flag_and_no_number(bad):
    for test in (effects.paired_effect, effects.welch_effect):
        found = test(A, np.append(B[:-1], bad))
        assert found.mean is None
        assert "DIVERGED" in found.flags


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="7 control losses but 3"):
        effects.paired_effect(A, B[:3])


def test_multiplier_recovers_k_exactly_on_a_power_law():
    def curve(tokens):
        return 2.0 + 2085 / tokens**0.35

    tokens, k = 2e9, 1.3
    delta = effects.effect_of(curve(k * tokens) - curve(tokens) + np.array([-1e-9, 1e-9, 0, 0]))
    slope = multiplier.horizon_slope([curve(tokens / 2)] * 2, [curve(tokens)] * 2, 2.0)
    found = multiplier.compute_multiplier(delta, slope)
    assert found.k == pytest.approx(k, rel=1e-6)
    assert found.estimand is Slope.k_tokens
    assert "SLOPE_LOCAL" in found.flags


def test_plain_chord_is_the_difference_over_the_slope():
    slope = multiplier.horizon_slope([3.2, 3.3], [3.0, 3.1], 2.0, exponent=0)
    found = multiplier.compute_multiplier(effects.effect_of([-0.02, -0.03, -0.01, -0.02]), slope)
    assert found.log_k == pytest.approx(0.02 / (0.2 / math.log(2)))


def test_slope_out_of_range():
    flat = multiplier.horizon_slope([3.0, 3.0], [3.1, 3.1], 2.0)
    steep = multiplier.horizon_slope([3.1, 3.1], [3.0, 3.0], 2.0)
    for slope, size in ((flat, 0.01), (steep, 5.0)):
        found = multiplier.compute_multiplier(effects.effect_of(size + A[:4] * 1e-3), slope)
        assert found.k is None
        assert "SLOPE_OUT_OF_RANGE" in found.flags


def test_ladder_fit_recovers_its_curve():
    flops = np.array([1e15, 1e16, 1e17, 1e18, 1e19])
    fit = multiplier.fit_ladder(flops, 1.8 + 3.0 * (flops / 1e17) ** -0.15)
    assert (fit.E, fit.a, fit.b, fit.C0) == pytest.approx((1.8, 3.0, 0.15, 1e17), rel=1e-4)
    assert fit.slopes[2].g == pytest.approx(0.45, rel=1e-4)
    assert not fit.slopes[0].flags
    assert multiplier.fit_ladder(flops[:3], [3.0, 2.5, 2.2]) is None
    assert "POOR_FIT" in multiplier.fit_ladder(flops, [3.0, 2.0, 3.0, 2.0, 3.0]).slopes[0].flags


def made(log_k, se, df=4.0, g=0.3):
    import dataclasses

    return dataclasses.replace(multiplier.multiplier_from(Slope.k_tokens, log_k, se, df, 3, ()), slope=g)


def test_pooling_by_hand():
    found = multiplier.pooled_multiplier([made(0.04, 0.01, g=0.6), made(0.06, 0.02, g=0.3)])
    parts = np.array([0.8**2 * 0.01**2, 0.2**2 * 0.02**2])
    assert (found.log_k, found.log_se) == exactly((0.8 * 0.04 + 0.2 * 0.06, math.sqrt(parts.sum())))
    assert found.df == exactly(parts.sum() ** 2 / (parts**2 / 4).sum())
    assert multiplier.pooled_multiplier([]) is None


def test_estimands_are_never_pooled():
    import dataclasses

    other = dataclasses.replace(made(0.04, 0.01), estimand=Slope.k_compute)
    with pytest.raises(ValueError, match="different questions"):
        multiplier.pooled_multiplier([made(0.04, 0.01), other])


@pytest.mark.parametrize(
    ("gamma", "se", "direction"),
    [
        (-0.03, 0.002, Direction.SHRINKS),
        (0.03, 0.002, Direction.GROWS),
        (0.0, 0.002, Direction.HOLDS),
        (0.0, 0.05, Direction.UNRESOLVED),
    ],
)
def test_trend_directions(gamma, se, direction):
    x = np.array([0.0, 1.0, 2.0, 3.0])
    ms = [made(0.05 + gamma * v, se) for v in x]
    found = trend(x, ms)
    assert found.gamma == pytest.approx(gamma, abs=1e-12)
    assert found.direction is direction
    mirrored = trend(x, [made(-m.log_k, se) for m in ms], sign=-1.0)
    assert mirrored.direction is direction


def test_projection_is_one_decade_ahead_and_tagged():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    found = project(x, [made(0.10 - 0.03 * v, 0.001) for v in x])
    assert found.log_k == pytest.approx(0.10 - 0.03 * (3 + math.log(10)))
    assert found.flags == ("EXTRAPOLATION",)
    assert found.crossing_flops == pytest.approx(math.exp(10 / 3))
    assert project(x, [made(1.0 - 0.03 * v, 0.001) for v in x]).crossing_flops is None
    assert project(x[:2], [made(0.1, 0.1)] * 2) is None


def test_looks_spend_alpha_exactly():
    for looks in (1, 4, 5, 31):
        assert sum(sequential.spend(k, looks) for k in range(1, looks + 1)) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="look 6 of 5"):
        sequential.spend(6, 5)


def test_a_look_needs_the_sign_of_the_one_before():
    clear = effects.effect_of([-0.1, -0.11, -0.1, -0.09, -0.1])
    other = effects.effect_of([0.1, 0.11, 0.1, 0.09, 0.1])
    test = sequential.SequentialTest(looks=4)
    assert test.look(clear) is sequential.Verdict.proceed
    assert test.look(other) is sequential.Verdict.proceed
    assert test.look(other) is sequential.Verdict.efficacy
    assert test.look(clear) is sequential.Verdict.efficacy
    with pytest.raises(ValueError, match="look 5 of 4"):
        test.look(clear)


def test_futility_is_equivalence():
    test = sequential.SequentialTest(looks=4, margin=0.01)
    nothing = effects.effect_of([0.001, -0.001, 0.0005, -0.0004])
    assert test.look(nothing, made(0.0, 0.02)) is sequential.Verdict.proceed
    assert test.look(nothing, made(0.0, 0.001, df=30.0)) is sequential.Verdict.futility


def test_e_process_is_its_formula_and_its_scale_does_not_matter():
    d = RNG.normal(0.8, 1.0, 6)
    process = sequential.SeedEProcess()
    values = [process.add(x) for x in d]
    n, tau, nu = 6, 2.0, 5
    t = d.mean() / d.std(ddof=1) * math.sqrt(n)
    width = 1 + n * tau**2
    wanted = -0.5 * math.log(width) - (nu + 1) / 2 * (
        math.log(1 + t**2 / (nu * width)) - math.log(1 + t**2 / nu)
    )
    assert values[0] == 0.0
    assert values[-1] == exactly(wanted)
    assert sequential.log_e_values(np.array([d * 1000]))[0, -1] == exactly(wanted)
    for _ in range(30):
        process.add(2.0 + RNG.normal() * 0.1)
    assert process.stopped
    with pytest.raises(ValueError, match="diverged"):
        process.add(math.nan)


def test_e_process_of_equal_differences():
    assert sequential.log_e_values(np.zeros((1, 5)))[0, -1] < 0
    assert sequential.log_e_values(np.ones((1, 5)))[0, -1] == pytest.approx(2 * math.log(21))


def test_power_by_simulation():
    plan = power.plan_power({"s": 5}, sd=0.002)
    size = plan.rungs[0].detectable
    draws = RNG.normal(size, 0.002, (4000, 5))
    found = scipy.stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)


def test_power_of_two_seeds_is_far_out_in_the_tail():
    size = power.plan_power({"s": 2}, sd=0.002, alpha=0.01, chance=0.9).rungs[0].detectable
    draws = RNG.normal(size, 0.002, (4000, 2))
    found = scipy.stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.01
    assert found.mean() == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("low", "high", "largest", "tost", "flags", "decision"),
    [
        (0.01, 0.05, -0.1, None, (), "B_BETTER"),
        (0.01, 0.05, 0.1, None, (), "INCONCLUSIVE"),
        (-0.05, -0.01, 0.1, None, (), "A_BETTER"),
        (-0.05, -0.01, -0.1, None, (), "INCONCLUSIVE"),
        (-0.005, 0.005, 0.1, 0.01, (), "EQUIVALENT"),
        (-0.05, 0.05, 0.1, 0.3, (), "INCONCLUSIVE"),
        (0.01, 0.05, -0.1, None, ("LOW_DF",), "B_BETTER"),
        (0.01, 0.05, -0.1, None, ("MIXED_CODE",), "INVALID"),
    ],
)
def test_decision_of_a_ladder(low, high, largest, tost, flags, decision):
    from harness.compare.decide import rule_ladder

    effect = effects.effect_of(largest + np.array([0.01, -0.01, 0.0, 0.0]))
    found = rule_ladder(made(0.5 * (low + high), 0.01), low, high, effect, tost, flags, 0.05)
    assert found.decision.value == decision


@pytest.mark.parametrize(("n", "more"), [(3, 2), (5, 8), (8, 17)])
def test_seeds_that_halve_the_interval(n, more):
    """t(n-1) / sqrt(n) is the width at equal noise: 4.303 / sqrt 3 against 2.776 / sqrt 5, and so on."""
    from harness.compare.decide import seeds_to_halve

    found = seeds_to_halve(effects.effect_of(RNG.normal(size=n)))

    def width(m):
        return scipy.stats.t.ppf(0.975, m - 1) / math.sqrt(m)

    assert found == more
    assert width(n + more) <= width(n) / 2 < width(n + more - 1)


def test_power_says_what_is_assumed():
    plan = power.plan_power({"xs": 3, "s": 1}, treatments=2, slopes={"xs": 0.5, "s": 0.4})
    assert plan.rungs[1].detectable is None
    assert plan.pooled_log_k is None
    assert plan.smallest_p == 0.125
    assert "Assumed" in plan.sentence
    assert "one seed" in plan.sentence
    floors = {"xs": effects.NoiseFloor("xs", 0.001, 20)}
    known = power.plan_power({"xs": 3}, floors=floors, slopes={"xs": 0.5})
    assert "A/A library" in known.assumption
    assert known.rungs[0].detectable < plan.rungs[0].detectable / 5
    assert known.rungs[0].detectable_log_k == pytest.approx(known.rungs[0].detectable / 0.5)


def test_noise_floor_from_groups():
    groups = [[1.0, 1.2], [2.0, 2.4, 2.2]]
    floor = noise_floor(groups)
    within = (0.02 * 1 + 0.04 * 2) / 3
    assert (floor.s0, floor.df) == exactly((math.sqrt(2 * within), 3))
    assert floor.correlation > 0.9
    assert noise_floor([[1.0], [2.0]]) is None


def test_outliers_are_named_only_when_far():
    quiet = [RNG.normal(0, 1, 5), RNG.normal(3, 1, 5)]
    assert not any(found.any() for found in effects.outliers(quiet))
    quiet[0][2] = 60.0
    assert effects.outliers(quiet)[0].tolist() == [False, False, True, False, False]


def test_surface_recovers_the_truth():
    n, d = np.repeat([1e7, 1e8, 1e9, 1e10], 5), np.tile(np.geomspace(1e9, 1e12, 5), 4)
    noise = np.exp(3e-3 * np.random.default_rng(4).normal(size=n.size))
    found = surface.fit_surface(n, d, truth(n, d) * noise)
    assert found.converged
    assert (found.E, found.alpha, found.beta) == pytest.approx((1.82, 0.348, 0.366), rel=0.05)
    assert found.loss(1e8, 2e9) == pytest.approx(truth(1e8, 2e9), rel=5e-3)


def test_surface_gradient_is_the_slope():
    data = RNG.normal(size=(3, 20))
    theta = np.array([0.1, -0.2, 0.3, 0.4, 0.2])
    _, gradient = surface.objective(theta, *data)
    for axis in range(5):
        step = np.zeros(5)
        step[axis] = 1e-6
        rise = surface.objective(theta + step, *data)[0] - surface.objective(theta - step, *data)[0]
        assert gradient[axis] == pytest.approx(rise / 2e-6, rel=1e-4)


def test_surface_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="15 or more"):
        surface.fit_surface([1e8] * 5, [1e9] * 5, [3.0] * 5)
    with pytest.raises(ValueError, match="positive"):
        surface.fit_surface([1e8] * 20, [1e9] * 20, [math.nan] * 20)


def test_chinchilla_points():
    found = surface.fit_surface(*validation.chinchilla())
    assert found.converged
    assert found.points == 240
    assert found.objective <= 0.00101828
    assert 1.8170 <= found.E <= 1.8174
    assert 0.3470 <= found.alpha <= 0.3476
    assert 0.3668 <= found.beta <= 0.3675


def test_a_default_optimizer_is_caught():
    """L-BFGS-B, which everybody uses, is in the full run: its LAPACK calls are slow on a busy machine."""
    found = surface.fit_surface(*validation.chinchilla(), minimize=validation.default_optimizer("BFGS"))
    assert not found.converged
    assert found.reason


def test_json_has_no_nan():
    import json

    effect = effects.with_interval(float("nan"), 1.0, 3, 2.0, "t")
    assert json.loads(json.dumps(to_json(effect), allow_nan=False))["mean"] is None
