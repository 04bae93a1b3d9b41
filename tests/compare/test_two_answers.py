"""HERE and BET of a whole verdict, over tables made by hand: what each depends on, and what it must not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
import scipy.stats

from harness.compare.compare_curves import read_curve_inputs
from harness.compare.judge import judge
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.stats.bet import BetDecision

PARAMETERS = {"s": 1_000_000, "m": 3_000_000, "l": 10_000_000}
SLOPE = 0.2
"""Nats per e-fold of tokens between the branch at half the tokens and the end."""
SEEDS = 4


def table(
    effects: Mapping[str, tuple[float, ...]],
    *,
    noise: float = 0.002,
    seeds: int = SEEDS,
    rng: int = 0,
    noisier: Mapping[str, float] = {},  # frozen
) -> pl.DataFrame:
    """Logs of a control `a` and treatments, each with its loss difference at s, m and l."""
    random = np.random.default_rng(rng)
    rows = []
    for place, (scale, parameters) in enumerate(PARAMETERS.items()):
        seed_levels = 0.01 * random.normal(size=seeds)
        for variant, by_scale in {"a": (0.0, 0.0, 0.0), **effects}.items():
            sd = noise * noisier.get(variant, 1.0)
            for seed, level in enumerate(seed_levels):
                loss = 3.0 - 0.2 * place + level + by_scale[place] + sd * random.normal()
                common = {"variant": variant, "scale": scale, "seed": seed, "parameters": parameters}
                common |= {"decayed": True, "data_seed": seed}
                end = {"step": 1000, "tokens": 20 * parameters, "loss": loss, "branch": None}
                half = {
                    "step": 500,
                    "tokens": 10 * parameters,
                    "loss": loss + SLOPE * math.log(2),
                    "branch": 0.5,
                }
                rows += [common | end, common | half]
    return pl.DataFrame(rows, schema_overrides={"branch": pl.Float64})


def verdict(frame: pl.DataFrame, control: str = "a", **rule) -> Comparison:
    inputs = read_curve_inputs(frame, control=control)
    return judge(dataclasses.replace(inputs, rule=dataclasses.replace(inputs.rule, **rule)))


def only(comparison: Comparison) -> Ladder:
    (ladder,) = comparison.ladder
    return ladder


def test_the_first_answer_is_that_of_the_largest_scale_alone():
    """Smaller scales that are clear and point the other way change no number of it."""
    alone = only(verdict(table({"b": (0.0, 0.0, -0.02)}).filter(scale="l")))
    with_smaller = only(verdict(table({"b": (0.05, 0.03, -0.02)})))
    assert alone.largest_scale
    assert with_smaller.largest_scale == alone.largest_scale
    assert (alone.decision, with_smaller.decision) == (Decision.B_BETTER, Decision.B_BETTER)
    opposite = only(verdict(table({"b": (-0.05, -0.05, 0.0)})))
    assert opposite.decision is Decision.INCONCLUSIVE
    assert opposite.k is None, "the scales have no k in common, so none is pooled"
    assert "HETEROGENEOUS" in opposite.flags


def test_two_treatments_share_the_variance_of_all_arms():
    """By the formula for a complete two-way table: Var(d) = 2 sum r^2 / ((V-1)(n-1)) / n."""
    frame = table({"b": (0.0, 0.0, -0.004), "c": (0.0, 0.0, 0.001)}, rng=2)
    comparison = verdict(frame)
    ends = frame.filter(scale="l").filter(pl.col("branch").is_null()).sort("variant", "seed")
    losses_VN = ends["loss"].to_numpy().reshape(3, SEEDS)
    r_VN = losses_VN - losses_VN.mean(1, keepdims=True) - losses_VN.mean(0) + losses_VN.mean()
    df = 2 * (SEEDS - 1)
    se = math.sqrt(2 * (r_VN**2).sum() / df / SEEDS)
    for ladder, own in zip(comparison.ladder, (1, 2), strict=True):
        assert ladder.largest_scale
        delta = ladder.largest_scale.delta
        mean = float((losses_VN[own] - losses_VN[0]).mean())
        half = scipy.stats.t.ppf(0.975, df) * se
        assert (delta.mean, delta.df) == (pytest.approx(mean), df)
        assert (delta.low, delta.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
        assert delta.method == "block t of 3 arms"
        assert comparison.rungs[[r.scale for r in comparison.rungs].index("s")].method == "paired t"


def test_a_noisier_arm_keeps_its_own_variance():
    effects = {"b": (0.0, 0.0, 0.0), "c": (0.0, 0.0, 0.0), "d": (0.0, 0.0, 0.0)}
    comparison = verdict(table(effects, seeds=6, noisier={"d": 40.0}))
    methods = {
        ladder.variant: ladder.largest_scale.delta.method
        for ladder in comparison.ladder
        if ladder.largest_scale
    }
    assert methods == {"b": "block t of 4 arms", "c": "block t of 4 arms", "d": "paired t"}
    assert ["NOISIER_ARM" in ladder.flags for ladder in comparison.ladder] == [False, False, True]


def test_a_run_that_is_missing_leaves_the_block_to_the_others():
    frame = table({"b": (0.0, 0.0, -0.02), "c": (0.0, 0.0, 0.0)})
    missing = (pl.col("scale") == "l") & (pl.col("variant") == "c") & (pl.col("seed") == 3)
    comparison = verdict(frame.filter(~missing))
    b, c = comparison.ladder
    assert b.largest_scale
    assert c.largest_scale
    assert (b.largest_scale.delta.n, c.largest_scale.delta.n) == (4, 3)
    assert b.largest_scale.delta.df == c.largest_scale.delta.df == 2 * (SEEDS - 1) - 1
    assert b.decision is Decision.B_BETTER


def test_holm_corrects_the_first_answer_over_the_treatments_only():
    comparison = verdict(table({"b": (0.0, 0.0, -0.004), "c": (0.0, 0.0, 0.0)}))
    b, c = (ladder.largest_scale for ladder in comparison.ladder)
    assert b
    assert c
    assert b.p is not None
    assert c.p is not None
    assert (b.p_holm, c.p_holm) == (pytest.approx(2 * b.p), pytest.approx(max(2 * b.p, c.p)))
    largest = {rung.variant: rung.p_holm for rung in comparison.rungs if rung.scale == "l"}
    assert largest == {"b": b.p_holm, "c": c.p_holm}, "the table says the same"


def test_swapping_the_variants_mirrors_both_answers():
    frame = table({"b": (-0.01, -0.01, -0.012)})
    forward, backward = only(verdict(frame)), only(verdict(frame, control="b"))
    assert (forward.decision, backward.decision) == (Decision.B_BETTER, Decision.A_BETTER)
    assert forward.bet
    assert backward.bet
    assert forward.bet.lean == backward.bet.lean == "b"
    one, other = forward.bet.estimate, backward.bet.estimate
    assert one.chance == pytest.approx(1 - other.chance, abs=0.01)
    assert one.log_k == pytest.approx(-other.log_k, rel=0.1), "the slopes are those of either control"


def test_a_target_at_the_largest_scale_gives_its_own_interval():
    flops = 6.0 * PARAMETERS["l"] * 20 * PARAMETERS["l"]
    ladder = only(verdict(table({"b": (0.0, 0.0, -0.01)}), target=flops))
    assert ladder.bet
    assert ladder.largest_scale
    k, estimate = ladder.largest_scale.k, ladder.bet.estimate
    assert k
    assert k.log_k is not None
    half = scipy.stats.t.ppf(0.95, k.df) * k.log_se
    assert (estimate.low, estimate.high) == (pytest.approx(k.log_k - half), pytest.approx(k.log_k + half))


def test_a_farther_target_and_a_larger_drift_widen_the_bet_and_leave_the_first_answer():
    frame = table({"b": (-0.01, -0.01, -0.01)})
    near, far, drifting = (
        only(verdict(frame, "a", **rule)) for rule in ({}, {"target": 1e19}, {"drift": 0.3})
    )
    assert near.largest_scale == far.largest_scale == drifting.largest_scale
    widths = [
        ladder.bet.estimate.high - ladder.bet.estimate.low for ladder in (near, far, drifting) if ladder.bet
    ]
    assert len(widths) == 3
    assert widths[0] < min(widths[1:])
    assert "TARGET_FAR" in far.flags
    assert "TARGET_FAR" not in near.flags


@pytest.mark.parametrize(
    ("effect", "margin", "decision"),
    [(-0.06, 0.05, BetDecision.BET_B), (0.06, 0.05, BetDecision.BET_A), (-0.0002, 0.3, BetDecision.EITHER)],
)
def test_the_second_answer_is_given_where_the_ladder_carries_it(effect, margin, decision):
    ladder = only(verdict(table({"b": (effect,) * 3}, noise=0.0005), bet_margin=margin, drift=0.015))
    assert ladder.bet
    assert ladder.bet.decision is decision
    assert ladder.bet.settle == ""


def test_what_blocks_the_comparison_blocks_the_bet():
    frame = table({"b": (-0.06,) * 3}, noise=0.0005)
    short = pl.when((pl.col("variant") == "b") & (pl.col("scale") == "s")).then(pl.col("tokens") // 2)
    invalid = only(verdict(frame.with_columns(short.otherwise("tokens").alias("tokens"))))
    assert (invalid.decision, invalid.bet) == (Decision.INVALID, None)
    unverified = only(verdict(frame.drop("decayed"), drift=0.015))
    assert unverified.decision is Decision.INCONCLUSIVE
    assert unverified.bet is None or unverified.bet.decision not in (BetDecision.BET_A, BetDecision.BET_B)


def test_without_compute_there_is_a_first_answer_and_no_second():
    ladder = only(verdict(table({"b": (-0.02,) * 3}).drop("parameters")))
    assert (ladder.decision, ladder.bet) == (Decision.B_BETTER, None)
