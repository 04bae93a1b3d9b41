"""The optimum of a bracket of learning rates: exact on parabolas, never beyond what was tried."""

import math

import numpy as np
import pytest

from harness.compare.inputs.lr_tuning import find_optimum, read_tuning
from harness.compare.verdict.flags import tuning_flags
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from tests.compare.synthetic import Recipe, write_sweep

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]


def parabola(rates, optimum, bend=0.05, bottom=2.0):
    return [bottom + bend * math.log(rate / optimum) ** 2 for rate in rates]


@pytest.mark.parametrize("optimum", [2.1e-3, 3.3e-3, 4e-3, 5.6e-3, 9.5e-3])
@pytest.mark.parametrize("rates", [RATES, [7e-4, 1.9e-3, 2.5e-3, 6e-3, 1e-2, 3e-2]])
def test_an_exact_parabola_gives_its_vertex(rates, optimum):
    found = find_optimum(rates, parabola(rates, optimum))
    assert (found.method, found.edge) == ("vertex", False)
    assert found.learning_rate == pytest.approx(optimum, rel=1e-9)
    assert found.loss == pytest.approx(2.0, abs=1e-12)
    assert found.points == len(rates)


def test_the_vertex_is_that_of_an_independent_fit():
    rates, losses = [1e-3, 3e-3, 5e-3], [2.31, 2.24, 2.29]
    a, b, c = np.polyfit(np.log(rates), losses, 2)
    found = find_optimum(rates, losses)
    assert found.learning_rate == pytest.approx(math.exp(-b / (2 * a)), rel=1e-9)
    assert found.loss == pytest.approx(c - b * b / (4 * a), rel=1e-9)


def test_scaled_rates_scale_the_optimum_and_shuffled_points_change_nothing():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rates = np.exp(rng.uniform(-9, -3, 6))
        losses = 2 + rng.uniform(0, 1, 6)
        losses[rng.integers(6)] = math.nan
        first = find_optimum(list(rates), list(losses))
        scaled = find_optimum(list(rates * 37), list(losses))
        assert scaled.learning_rate == pytest.approx(37 * first.learning_rate, rel=1e-12)
        assert (scaled.edge, scaled.method) == (first.edge, first.method)
        order = rng.permutation(6)
        assert find_optimum(list(rates[order]), list(losses[order])) == first


def test_the_optimum_never_leaves_the_midpoints_around_the_best_point():
    rng = np.random.default_rng(1)
    for _ in range(300):
        rates = np.sort(np.exp(rng.uniform(-9, -3, 5)))
        losses = 2 + rng.choice([1.0, 1e-15, 0.0], 5) * rng.uniform(0, 1, 5)
        found = find_optimum(list(rates), list(losses))
        if found.method == "vertex":
            best = int(losses.argmin())
            low, high = (math.sqrt(rates[best] * rates[best + side]) for side in (-1, 1))
            assert low * (1 - 1e-12) <= found.learning_rate <= high * (1 + 1e-12)
            assert found.loss <= losses.min()
        else:
            assert found.learning_rate in rates


@pytest.mark.parametrize("falling", [True, False])
def test_an_optimum_at_the_end_of_the_bracket_is_not_extrapolated(falling):
    losses = sorted(parabola(RATES, 1e-3), reverse=falling)
    found = find_optimum(RATES, losses)
    assert found.learning_rate == (RATES[-1] if falling else RATES[0])
    assert (found.edge, found.method, found.loss) == (True, "best_point", min(losses))


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_a_diverged_rate_above_the_best_closes_the_bracket_without_a_vertex(lost):
    found = find_optimum(RATES, [2.4, 2.3, 2.2, lost, lost])
    assert (found.learning_rate, found.edge, found.method) == (4e-3, False, "best_point")
    assert (found.points, found.curve[-1]) == (5, (1.6e-2, None))


def test_a_diverged_rate_below_the_best_says_nothing_of_lower_rates():
    assert find_optimum(RATES, [None, None, 2.2, 2.3, 2.4]).edge
    beyond = find_optimum(RATES, [2.5, None, 2.2, 2.3, 2.4])
    assert (beyond.learning_rate, beyond.edge, beyond.method) == (4e-3, False, "best_point")


@pytest.mark.parametrize("losses", [[2.2, None, None], [2.3, 2.2, None], [2.2, 2.3, None]])
def test_fewer_than_three_finite_losses_are_an_open_bracket(losses):
    found = find_optimum(RATES[:3], losses)
    assert (found.edge, found.method, found.loss) == (True, "best_point", 2.2)


def test_equal_losses_take_the_lower_rate():
    assert find_optimum(RATES, [2.0] * 5).learning_rate == 1e-3
    flat = find_optimum(RATES, [2.5, 2.0, 2.0, 2.0, 2.5])
    assert 1e-3 < flat.learning_rate < 4e-3
    assert not flat.edge


def test_nothing_finite_is_said_by_name():
    with pytest.raises(UserError, match=r"hybrid diverged at every learning rate \(0.001, .*\)\. Lower"):
        find_optimum(RATES, [None, math.nan, math.inf, None, None], variant="hybrid")


@pytest.mark.parametrize("rates", [[1e-3, 1e-3], [0.0, 1e-3], [-1e-3, 1e-3], [math.nan, 1e-3], [1e-3]])
def test_what_is_no_bracket_is_refused(rates):
    with pytest.raises(ValueError, match="find_optimum"):
        find_optimum(rates, [2.0, 2.1])


def tune_sweep(path, truth, edit=lambda draft: None):
    """A tune sweep, `<rate>/<variant>/seed1000003`, whose losses lie on a parabola for each variant."""

    def place(draft):
        rate = float(draft.scale.removeprefix("lr"))
        draft.config["optimizer"]["learning_rate"] = rate
        shift = {"code": 0.1, "prose": -0.1}
        for row in draft.evals:
            row["loss"] = parabola([rate], truth[draft.variant])[0] + shift[row["domain"]] * (1 + rate)
        return edit(draft)

    scales = {f"lr{rate:g}": 10**7 for rate in RATES}
    recipe = Recipe(
        scales=scales, variants=dict.fromkeys(truth, 1.0), seeds=(1_000_003,), branches=(), with_steps=False
    )
    return write_sweep(path, recipe, place)


TRUTH = {"mha": 3.3e-3, "hybrid": 5e-3}


def test_a_tune_sweep_is_read_by_variant(tmp_path):
    found = read_tuning(tune_sweep(tmp_path, TRUTH), ())
    assert {name: each.learning_rate for name, each in found.items()} == pytest.approx(TRUTH, rel=1e-9)
    assert [rate for rate, _ in found["mha"].curve] == RATES


def test_only_the_domains_of_the_rule_decide(tmp_path):
    sweep = tune_sweep(tmp_path, TRUTH)
    code, both = read_tuning(sweep, ("code",))["mha"], read_tuning(sweep, ())["mha"]
    assert code.curve[0][1] == pytest.approx(both.curve[0][1] + 0.1 * 1.001)
    assert code.learning_rate < both.learning_rate


def test_diverged_runs_are_points_without_a_loss(tmp_path):
    def diverge(draft):
        if draft.variant == "mha" and draft.scale == "lr0.008":
            draft.status["state"] = "diverged"
        if draft.variant == "mha" and draft.scale == "lr0.016":
            for row in draft.evals:
                row["loss"] = math.nan

    mha = read_tuning(tune_sweep(tmp_path, TRUTH, diverge), ())["mha"]
    assert (mha.points, mha.curve[3:]) == (5, ((0.008, None), (0.016, None)))


@pytest.mark.parametrize("state", ["running", "failed", "oom", "lost", "preempted"])
def test_a_run_that_has_not_ended_makes_the_brackets_unequal(tmp_path, state):
    def fail(draft):
        if draft.variant == "hybrid" and draft.scale == "lr0.001":
            draft.status["state"] = state

    found = read_tuning(tune_sweep(tmp_path, TRUTH, fail), ())
    assert (found["mha"].points, found["hybrid"].points) == (5, 4)
    tuning = {name: {"points": each.points, "edge": each.edge} for name, each in found.items()}
    assert tuning_flags(tuning, "mha", "hybrid", ()) == {"UNEQUAL_TUNING"}


def test_a_hot_end_is_no_loss(tmp_path):
    def hot(draft):
        for row in draft.evals:
            row["decayed"] = False

    with pytest.raises(UserError, match="has no tuning run that ended with a decayed loss"):
        read_tuning(tune_sweep(tmp_path, TRUTH, hot), ())


def test_a_variant_that_diverged_everywhere_is_named(tmp_path):
    def diverge(draft):
        if draft.variant == "hybrid":
            draft.status["state"] = "diverged"

    with pytest.raises(UserError, match="hybrid diverged at every learning rate"):
        read_tuning(tune_sweep(tmp_path, TRUTH, diverge), ())


def test_a_config_that_was_changed_is_refused(tmp_path):
    sweep = tune_sweep(tmp_path, TRUTH)
    config = sweep.run("lr0.004", "mha", 1_000_003).config
    config.write_text(config.read_text().replace("learning_rate: 0.004", "learning_rate: 0.04"))
    with pytest.raises(UserError, match=r"config\.yaml is missing or damaged"):
        read_tuning(sweep, ())


def test_one_rate_twice_is_refused(tmp_path):
    def repeat(draft):
        if draft.scale == "lr0.016":
            draft.config["optimizer"]["learning_rate"] = 0.008

    with pytest.raises(UserError, match=r"tuned twice at a learning rate of 0\.008"):
        read_tuning(tune_sweep(tmp_path, TRUTH, repeat), ())


def test_no_runs_are_no_optima(tmp_path):
    assert read_tuning(SweepDir(tmp_path), ()) == {}
