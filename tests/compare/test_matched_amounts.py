"""Runs that got equal FLOPs or device-seconds instead of tokens."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.estimates import SlopeAxis
from harness.config.schema.decision import Axis
from harness.core.errors import UserError
from tests.compare.judging import is_treatment, judged
from tests.compare.synthetic import Recipe, surface

K, RATIO, PARAMETERS = 1.05, 1.25, 10**8
TOKENS = 2_000_000_000


def log(flops: float = 1.0, seconds: float = 1.0, k: float = K, seeds: int = 5) -> pl.DataFrame:
    """A treatment that costs RATIO times the FLOPs a token, and gets that many fewer tokens; `flops` and
    `seconds` are what it got of them over the control's."""
    rng, rows = np.random.default_rng(1), []
    for seed in range(seeds):
        shared = rng.normal()
        for variant, cost, got in (("control", 1.0, 1.0), ("treatment", RATIO, flops)):
            tokens = round(TOKENS / cost * got)
            noise = 0.0006 * (0.5 * shared + 0.87 * rng.normal())
            for share in (0.5, 1.0):
                rows.append(
                    {
                        "variant": variant, "scale": "s", "seed": seed, "step": round(1000 * share),
                        "tokens": round(tokens * share),
                        "loss": surface(PARAMETERS, tokens * share, k if cost > 1 else 1.0) + noise,
                        "flops": cost * 6.0 * PARAMETERS * tokens * share,
                        "seconds": 600.0 * share * (seconds if cost > 1 else 1.0),
                        "branch": 0.5 if share < 1 else None, "decayed": True,
                    }
                )  # fmt: skip
    return pl.DataFrame(rows)


def test_equal_flops_give_the_multiplier_of_flops():
    comparison = compare_curves(log(), control="control", match="flops")
    (rung,) = comparison.rungs
    assert not {"UNEQUAL_TOKENS", "UNMATCHED"}.intersection(rung.flags)
    assert "OTHER_TOKENS" in rung.flags
    assert rung.k.estimand is SlopeAxis.k_flops
    assert rung.k.k_per_flop is None
    # K more tokens' worth from RATIO times the FLOPs each: at equal FLOPs K / RATIO.
    assert rung.k.log_k == pytest.approx(math.log(K / RATIO), abs=0.01)
    assert comparison.ladder[0].decision is Decision.A_BETTER
    assert "fewer FLOPs" in comparison.verdict
    assert any("at equal FLOPs" in note for note in comparison.notes)


def test_without_the_rule_other_tokens_still_block():
    (rung,) = compare_curves(log(), control="control").rungs
    assert rung.decision is Decision.INVALID
    assert "UNEQUAL_TOKENS" in rung.flags


@pytest.mark.parametrize(("off", "blocked"), [(1.009, False), (0.992, False), (1.012, True), (0.98, True)])
def test_flops_may_differ_by_one_percent(off, blocked):
    (rung,) = compare_curves(log(flops=off), control="control", match="flops").rungs
    assert ("UNMATCHED" in rung.flags) is blocked
    assert (rung.decision is Decision.INVALID) is blocked


@pytest.mark.parametrize(("off", "blocked"), [(1.019, False), (0.981, False), (1.022, True), (0.97, True)])
def test_seconds_may_differ_by_two_percent(off, blocked):
    (rung,) = compare_curves(log(seconds=off), control="control", match="seconds").rungs
    assert ("UNMATCHED" in rung.flags) is blocked
    assert rung.k.estimand is SlopeAxis.k_seconds


def test_what_no_column_tells_is_asked_for_or_vouched_for():
    plain = log().drop("flops", "seconds")
    with pytest.raises(UserError, match=r"match=flops: .* `flops` or `parameters`.*--map flops="):
        compare_curves(plain, control="control", match="flops")
    with pytest.raises(UserError, match="match=flop: no such resource"):
        compare_curves(log(), control="control", match="flop")
    comparison = compare_curves(plain, control="control", match="seconds")
    assert any("you vouch" in note for note in comparison.notes)
    half = log().with_columns(pl.when(pl.col("variant") == "control").then("seconds").alias("seconds"))
    assert "UNMATCHED" in compare_curves(half, control="control", match="seconds").rungs[0].flags


def fewer_tokens(draft):
    """Edit a sweep to one of equal FLOPs: the treatment's tokens cost RATIO times as much."""
    draft.config["rule"]["match"] = "flops"
    if not is_treatment(draft):
        return
    draft.run["touches"] = ["model.attention", "scale.tokens"]
    draft.run["tokens"] = round(draft.run["tokens"] / RATIO)
    draft.facts["flops_per_token"] *= RATIO
    draft.facts["steps"] = round(draft.facts["steps"] / RATIO)
    for row in (*draft.evals, *(row for rows in draft.branches.values() for row in rows)):
        row["tokens"] = round(row["tokens"] / RATIO)


def test_a_sweep_of_equal_flops_is_judged(tmp_path):
    beside = {"rule": {"control": "mha", "match": "flops", "family": ["hybrid"]}}
    recipe = Recipe(with_steps=False, scales={"xs": 10**7, "s": 3 * 10**7}, beside=beside)
    comparison = judged(tmp_path, recipe, fewer_tokens)
    assert comparison.rule.match is Axis.flops
    for rung in comparison.rungs:
        assert rung.decision is not Decision.INVALID
        assert "UNEQUAL_FLOPS" in rung.flags
        assert rung.k.estimand is SlopeAxis.k_flops
