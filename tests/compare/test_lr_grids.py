"""Learning rates in logs: a grid counts as tuning, a schedule does not."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError

GRID = (1e-4, 3e-4, 6e-4, 2e-3)
BEST = {"a": 3e-4, "b": 6e-4}
STEPS = 10


def end_loss(variant: str, seed: int, step: int, rate: float) -> float:
    """b is .01 nats better at its own best rate, which is twice that of a."""
    curve = 4 - 0.1 * math.log(step) - 0.01 * (variant == "b") + 3e-4 * math.sin(9 * seed + ord(variant))
    return curve + 0.05 * math.log(rate / BEST[variant]) ** 2


def log(rates=GRID, seeds=(0, 1, 2), cosine=False, variants=("a", "b")) -> pl.DataFrame:
    rows = [
        (v, "s", seed, 10 * i, 1000 * i, end_loss(v, seed, i, rate),
         rate * math.cos(0.49 * math.pi * i / STEPS) if cosine else rate)
        for v in variants for rate in rates for seed in seeds for i in range(1, STEPS + 1)
    ]  # fmt: skip
    names = ("variant", "scale", "seed", "step", "tokens", "loss", "learning_rate")
    return pl.DataFrame(rows, schema=names, orient="row")


def rung(*tables, **options):
    given: dict[str, Any] = {"decayed": "last"} | options
    return compare_curves([*tables], **given).rungs[0]


def test_each_variant_is_compared_at_its_own_best_rate():
    comparison = compare_curves(log(), decayed="last")
    (tuned,) = comparison.rungs
    expected = [end_loss("b", s, STEPS, 6e-4) - end_loss("a", s, STEPS, 3e-4) for s in (0, 1, 2)]
    assert [pair.delta for pair in tuned.pairs] == pytest.approx(expected)
    assert tuned.decision is Decision.B_BETTER
    assert "SEED_REUSED_FOR_TUNING" in tuned.flags
    assert not {"UNEQUAL_TUNING", "LR_GRID_EDGE", "UNEQUAL_TOKENS"} & {*tuned.flags}
    rows = {row.variant: row for row in comparison.fairness}
    assert [rate for rate, _ in rows["a"].curve] == [*GRID]
    assert "lr 0.0003 of 4 points" in rows["a"].tuning
    assert any("b at s has runs at learning rates 0.0001, 0.0003" in note for note in comparison.notes)


def test_the_verdict_is_that_of_the_runs_at_the_best_rates_alone():
    best = [log([BEST[v]], variants=[v]).drop("learning_rate") for v in BEST]
    assert rung(log()).delta == rung(*best).delta
    shuffled = log().sample(fraction=1, shuffle=True, seed=1)
    assert rung(shuffled, control="a").delta == rung(*best).delta


def test_a_rate_that_is_a_setting_says_nothing_of_a_decay():
    told = rung(log(), decayed=None)
    assert told.decision is Decision.INCONCLUSIVE
    assert "DECAY_UNVERIFIED" in told.flags
    assert "HOT_LR_LOOK" not in told.flags


@pytest.mark.parametrize("rates", [GRID[1:], GRID[:3], (2e-4, 3e-4, 6e-4, 2e-3), (6e-4,)])
def test_other_grids_of_the_two_variants_are_named(rates):
    unequal = rung(log(variants=["a"]), log(rates, variants=["b"]))
    assert "UNEQUAL_TUNING" in unequal.flags


def test_a_best_rate_at_the_edge_is_named():
    assert "LR_GRID_EDGE" in rung(log(GRID[:2])).flags
    assert "LR_GRID_EDGE" in rung(log(GRID[1:])).flags


def test_rates_at_which_runs_diverged_are_not_chosen():
    diverges = (pl.col("learning_rate") == BEST["b"]) & (pl.col("variant") == "b") & (pl.col("seed") == 0)
    loss = pl.when(diverges & (pl.col("step") > 50)).then(math.nan).otherwise("loss")
    comparison = compare_curves(log().with_columns(loss=loss), decayed="last")
    assert any("b at s" in note and "compared at 0.0003" in note for note in comparison.notes)
    everywhere = log().with_columns(loss=pl.when(variant="b").then(math.nan).otherwise("loss"))
    assert "DIVERGED" in rung(everywhere).flags


def test_the_peaks_of_schedules_are_a_grid_where_each_log_is_a_run():
    tables = [log([rate], cosine=True) for rate in GRID]
    tuned = rung(*tables, decayed=None)
    assert tuned.delta == rung(log()).delta
    assert tuned.decision is Decision.B_BETTER
    with pytest.raises(UserError, match="--map learning_rate=COLUMN tells them"):
        rung(pl.concat(tables))


def test_one_schedule_is_no_grid():
    single = log([3e-4], cosine=True)
    assert not {"SEED_REUSED_FOR_TUNING", "UNEQUAL_TUNING"} & {*rung(single, decayed=None).flags}
    first, second = single.filter(pl.col("step") <= 60), single.filter(pl.col("step") >= 50)
    assert rung(first, second, decayed=None).delta == rung(single, decayed=None).delta


def test_a_run_that_broke_off_in_its_warmup_is_no_point_of_a_grid():
    warm = pl.when(pl.col("step") <= 30).then(pl.col("learning_rate") * pl.col("step") / 30)
    warmed = log([3e-4], cosine=True).with_columns(warm.otherwise("learning_rate"))
    lost = (pl.col("variant") == "b") & (pl.col("seed") == 2) & (pl.col("step") > 20)
    broken = rung(warmed.filter(~lost), decayed=None)
    assert "UNEQUAL_TOKENS" in broken.flags
    assert broken.decision is Decision.INVALID


def test_rates_that_differ_between_seeds_are_a_grid():
    single_seeds = [log([rate], seeds=(seed,)) for seed, rate in enumerate(GRID)]
    comparison = compare_curves(pl.concat(single_seeds), decayed="last")
    assert comparison.ladder[0].decision not in (Decision.A_BETTER, Decision.B_BETTER)
    assert any("a at s has runs at learning rates" in note for note in comparison.notes)
