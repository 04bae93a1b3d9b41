"""What stands beside the verdict: null sweeps and their library, and curves from elsewhere."""

from __future__ import annotations

import math

import polars as pl
import pytest

from harness.compare import compare, compare_curves, store_library
from harness.compare.inputs.noise_floor import (
    false_positive_rate,
    floor_key,
    matching_floors,
)
from harness.compare.inputs.run_records import read_runs
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError
from tests.compare.synthetic import Recipe, write_sweep

ONE = Recipe(scales={"xs": 10**7}, with_steps=False)


NULL = Recipe("null", {"xs": 10**7}, {"mha": 1.0}, seeds=tuple(range(12)), null_orders=3, with_steps=False)


def test_null_sweep_says_its_rate_and_that_it_is_too_few(tmp_path):
    sweep = write_sweep(tmp_path / "null", NULL)
    comparison = compare(sweep)
    assert "of 6 null pairs" in comparison.verdict
    assert "too few to tell" in comparison.verdict
    assert false_positive_rate(read_runs(write_sweep(tmp_path / "plain", ONE))) is None


def test_null_rate_holds_its_level(tmp_path):
    recipe = Recipe("null", NULL.scales, NULL.variants, tuple(range(80)), null_orders=40, with_steps=False)
    recipe = Recipe(**recipe.__dict__ | {"points": 1, "branches": ()})
    rate = false_positive_rate(read_runs(write_sweep(tmp_path / "null", recipe)))
    assert rate.pairs == 40
    assert rate.low <= 0.05 <= rate.high
    assert "too few" not in rate.sentence


def test_library_serves_only_the_same_control(tmp_path):
    aa = write_sweep(tmp_path / "null", NULL)
    (entry,) = store_library(aa, "mha")
    assert entry.s0 == pytest.approx(math.sqrt(2 * 0.75) * 0.0011, rel=0.5)
    fitting = write_sweep(tmp_path / "fits", ONE)
    assert set(_floors(fitting)) == {"xs"}
    other = write_sweep(tmp_path / "other", Recipe(scales={"xs": 2 * 10**7}, with_steps=False))
    assert _floors(other) == {}
    (aa.path / "aa_library.json").write_text('{"scales": [{"scale": "xs"}, 3, {"s0": -1}]}')
    assert _floors(fitting) == {}


def _floors(sweep):
    return matching_floors(sweep, [floor_key(run.provenance) for run in read_runs(sweep)])


def test_same_seed_twins_that_differ_are_named(tmp_path):
    recipe = Recipe("null", NULL.scales, {"mha": 1.0, "again": 1.0}, (0, 1), with_steps=False)

    def same_model(draft):
        draft.config["model"]["attention"]["name"] = "mha"

    notes = compare(write_sweep(tmp_path / "null", recipe, same_model)).notes
    assert "not equal, though they must be" in notes[0]


def table(recipe: Recipe, tmp_path, **columns) -> pl.DataFrame:
    """The evaluations of a synthetic sweep as a trainer's log."""
    rows = []
    for run in read_runs(write_sweep(tmp_path / "source", recipe)):
        scale, variant, seed = run.key
        for share, evals in {None: run.evals, **run.branches}.items():
            frame = pl.DataFrame(evals.columns).with_columns(
                scale=pl.lit(scale), variant=pl.lit(variant), seed=seed, branch=pl.lit(share, pl.Float64)
            )
            rows.append(frame)
    return pl.concat(rows)


def test_curves_give_the_verdict_of_their_sweep(tmp_path):
    log = table(ONE, tmp_path)
    ours = compare_curves([log], control="mha")
    theirs = compare(tmp_path / "source")
    assert ours.rungs[0].delta == theirs.rungs[0].delta
    assert ours.rungs[0].k == theirs.rungs[0].k
    assert ours.ladder[0].decision is Decision.B_BETTER
    assert "ORDER_UNVERIFIED" in ours.rungs[0].flags


def test_csv_files_with_the_required_columns_alone(tmp_path):
    log = table(ONE, tmp_path).filter(pl.col("branch").is_null(), pl.col("domain") == "prose")
    columns = ["variant", "scale", "seed", "step", "tokens", "loss"]
    for name in ("mha", "hybrid"):
        log.filter(pl.col("variant") == name).select(columns).write_csv(tmp_path / f"{name}.csv")
    comparison = compare_curves([tmp_path / "mha.csv", str(tmp_path / "hybrid.csv")], decayed="last")
    assert comparison.rule.control == "mha"
    assert comparison.rungs[0].n == 3
    assert comparison.rungs[0].k is None
    assert comparison.ladder[0].decision is Decision.B_BETTER
    assert "decayed" in comparison.notes[0]


def test_curves_with_nan_and_short_runs(tmp_path):
    log = table(ONE, tmp_path).filter(pl.col("branch").is_null())
    last = (pl.col("variant") == "hybrid") & (pl.col("step") == 64)
    nan = log.with_columns(loss=pl.when(last & (pl.col("seed") == 1)).then(math.nan).otherwise("loss"))
    assert "DIVERGED" in compare_curves([nan], control="mha").rungs[0].flags
    short = compare_curves([log.filter(~last)], control="mha").rungs[0]
    assert {"UNEQUAL_TOKENS", "HOT_LR_LOOK"} <= set(short.flags)
    assert short.decision is Decision.INVALID


def test_curves_that_cannot_be_used_say_why(tmp_path):
    good = pl.DataFrame(
        {"variant": ["a"], "scale": ["s"], "seed": [0], "step": [1], "tokens": [1], "loss": [1.0]}
    )
    with pytest.raises(UserError, match="no column 'loss'; did you mean 'los'"):
        compare_curves([good.rename({"loss": "los"})])
    with pytest.raises(UserError, match="no such variant"):
        compare_curves([good], control="b")
    with pytest.raises(UserError, match="is not a number"):
        compare_curves([good.with_columns(seed=pl.lit("zero"))])
    with pytest.raises(UserError, match="cannot be read"):
        compare_curves([tmp_path / "absent.csv"])
    with pytest.raises(UserError, match="no rows"):
        compare_curves([])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="is empty"):
        compare_curves([tmp_path / "empty.csv"])
