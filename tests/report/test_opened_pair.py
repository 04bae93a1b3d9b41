"""A pair and a verdict, taken from an opened sweep."""

from __future__ import annotations

import polars as pl
import pytest

import harness
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.report.open_sweep import OpenedSweep
from tests.report.conftest import HOSTILE, sweep_of


@pytest.fixture(scope="module")
def opened(sweep: SweepDir) -> OpenedSweep:
    return harness.open_sweep(sweep.path)


def held_out(opened: OpenedSweep, variant: str) -> pl.DataFrame:
    """Return the mean over the domains at each seed and step of a run at scale s, without branches."""
    rows = opened.evals.filter(pl.col("branch").is_null(), pl.col("step") > 0, scale="s", variant=variant)
    return rows.group_by("seed", "step").agg(pl.col("loss").mean()).sort("seed", "step")


def test_a_pair_has_the_ends_of_its_seeds(opened: OpenedSweep):
    seeds = opened.pair("hybrid", "mha", scale="s").seeds
    ends = [held_out(opened, name).group_by("seed").last().sort("seed")["loss"] for name in ("mha", "hybrid")]
    assert seeds["seed"].to_list() == [0, 1, 2]
    assert seeds["control"].to_list() == pytest.approx(ends[0].to_list())
    assert seeds["delta"].to_list() == pytest.approx((ends[1] - ends[0]).to_list())


def test_the_differences_along_the_run_are_those_of_equal_seed_and_step(opened: OpenedSweep):
    pair = opened.pair("hybrid", scale="s")
    run = pair.differences.filter(pl.col("phase") != "branch")
    expected = held_out(opened, "hybrid")["loss"] - held_out(opened, "mha")["loss"]
    assert run["delta"].to_list() == pytest.approx(expected.to_list())
    assert pair.differences.filter(phase="branch").height > 0


def test_the_chart_of_a_pair_has_its_scale_and_treatment_alone(opened: OpenedSweep):
    spec = opened.pair("hybrid", scale="s").figure().to_dict()
    rows = pl.read_csv(spec["data"]["values"].encode())
    assert {*rows["scale"]} == {"s"}
    assert {*rows["variant"]} == {"hybrid"}


def test_the_largest_scale_is_taken_unless_another_is_named(opened: OpenedSweep):
    assert opened.pair("hybrid").rung.scale == "m"
    assert opened.pair("short", scale="xs").rung.variant == "short"


@pytest.mark.parametrize(
    ("words", "scale", "sentence"),
    [
        (("hybird",), None, "variant=hybird is not compared here; did you mean 'hybrid'"),
        (("mha",), None, "variant=mha is the control"),
        (("hybrid", "short"), None, "control=short: the verdict compares with mha alone"),
        (("hybrid",), "xl", "scale=xl: hybrid has no pair there; did you mean 'xs'"),
    ],
)
def test_what_has_no_pair_is_refused(opened: OpenedSweep, words, scale, sentence):
    with pytest.raises(UserError, match=sentence):
        opened.pair(*words, scale=scale)


def test_a_pair_shows_its_numbers(opened: OpenedSweep):
    pair = opened.pair("hybrid", scale="m")
    lines = repr(pair).splitlines()
    assert lines[0] == "hybrid against mha at m"
    assert lines[1].startswith(f"  {pair.rung.decision.value}: ")
    assert len(lines) == 4 + len(pair.rung.pairs)
    assert pair._repr_html_().count("<tr>") == 1 + len(pair.rung.pairs)


def test_the_verdict_has_a_decision_a_bet_and_a_way_to_settle_it(opened: OpenedSweep):
    verdict, (ladder, _) = opened.verdict, opened.comparison.ladder
    assert verdict.decisions == {item.variant: item.decision.value for item in opened.comparison.ladder}
    assert verdict.bets["hybrid"] == (ladder.bet and ladder.bet.decision.value)
    assert verdict.settle["hybrid"] == ladder.settle
    assert repr(verdict).splitlines()[0] == "hybrid against mha"
    assert f"({ladder.decision.value})" in repr(verdict)
    assert verdict._repr_html_().count("<ul>") == 2


def test_names_do_nothing_in_a_notebook(tmp_path):
    name = HOSTILE.replace("/", "")
    opened = harness.open_sweep(sweep_of(tmp_path / "hostile", ("mha", name), with_steps=False).path)
    for shown in (opened.pair(name), opened.verdict, opened):
        assert "<img" not in shown._repr_html_()
