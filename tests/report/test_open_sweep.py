"""A sweep opened in Python says what its files and its comparison say."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest

import harness
from experiments.attention import recompute
from harness.compare import compare
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.run.metrics import read_curve
from harness.report.open_sweep import OpenedSweep
from tests.compare.synthetic import write_sweep
from tests.report.conftest import HOSTILE, sweep_of


@pytest.fixture(scope="module")
def opened(sweep: SweepDir) -> OpenedSweep:
    return harness.open_sweep(sweep.path)


def test_runs_are_those_of_the_sweep(opened: OpenedSweep):
    assert opened.runs.height == 27
    row = opened.runs.row(
        by_predicate=(pl.col("path").str.ends_with("s/hybrid/seed2")) & (pl.col("scale") == "s"), named=True
    )
    assert (row["variant"], row["seed"], row["state"], row["parameters"]) == (
        "hybrid",
        2,
        "finished",
        3 * 10**7,
    )
    assert row["flops"] == row["tokens"] * 6 * row["parameters"]
    ends = opened.evals.filter(pl.col("branch").is_null(), scale="s", variant="hybrid", seed=2, decayed=True)
    assert row["loss"] == pytest.approx(ends["loss"].mean())


def test_curves_of_all_runs_stand_in_one_frame(opened: OpenedSweep, sweep: SweepDir):
    run = sweep.run("m", "short", 1)
    own = {"scale": "m", "variant": "short", "seed": 1}
    assert opened.steps.filter(**own).drop(*own).equals(read_curve(run, "steps"))
    evals = opened.evals.filter(**own)
    assert evals.filter(pl.col("branch").is_null()).drop(*own, "branch").equals(read_curve(run, "evals"))
    assert evals.filter(branch=0.5).drop(*own, "branch").equals(read_curve(run.branch(0.5), "evals"))
    assert opened.steps.height == 27 * read_curve(run, "steps").height


def test_effects_are_those_of_the_comparison(opened: OpenedSweep):
    comparison = opened.comparison
    assert opened.effects.height == len(comparison.rungs) + len(comparison.ladder)
    for rung in comparison.rungs:
        row = opened.effects.row(
            by_predicate=(pl.col("scale") == rung.scale) & (pl.col("variant") == rung.variant), named=True
        )
        assert (row["n"], row["mean"], row["low"], row["p_holm"]) == (
            3,
            rung.delta.mean,
            rung.delta.low,
            rung.p_holm,
        )
        assert (row["k"], row["decision"], tuple(row["flags"])) == (rung.k.k, rung.decision.value, rung.flags)
    ladder = opened.effects.filter(scale="ladder", variant="hybrid").row(0, named=True)
    assert (ladder["mean"], ladder["k"]) == (None, comparison.ladder[0].k.k)


def test_what_a_sweep_lacks_is_null(tmp_path):
    def odd(draft):
        return draft.scale == "xs" and (draft.variant, draft.seed) != ("hybrid", 1)

    sweep = write_sweep(tmp_path / "odd", edit=odd)
    sweep.run("xs", "hybrid", 2).run.write_text("{")
    opened = harness.open_sweep(sweep.path)
    lost = opened.runs.filter(variant="hybrid").sort("seed").select("state", "parameters", "loss").rows()
    assert lost[1] == ("missing", None, None)
    assert lost[2][1] is None
    assert opened.effects["n"].to_list()[0] is not None
    one = write_sweep(tmp_path / "one", edit=lambda draft: draft.variant == "mha" and draft.seed == 0)
    alone = harness.open_sweep(one.path)
    assert alone.effects.is_empty()
    assert "figure" not in repr(alone)


def test_figures_are_charts_by_name(opened: OpenedSweep):
    assert opened.figures == ("k", "curves", "difference")
    for name in opened.figures:
        spec = opened.figure(name).to_dict()
        assert spec["config"]["range"]["category"]
        json.dumps(spec)
    with pytest.raises(UserError, match="did you mean 'difference'"):
        opened.figure("diference")


@pytest.mark.parametrize(("old", "new"), [("ladder", "k"), ("deltas", "difference")])
def test_the_old_name_of_a_figure_is_answered_with_the_new_one(opened: OpenedSweep, old, new):
    with pytest.warns(DeprecationWarning, match=f"figure={old} is now called {new}"):
        assert opened.figure(old).to_dict() == opened.figure(new).to_dict()


def test_curves_are_the_rows_of_their_chart(opened: OpenedSweep):
    curves = opened.curves()
    own = {"scale": "s", "variant": "hybrid", "seed": 1}
    both = curves.filter(**own).join(opened.steps.filter(**own), on="step", suffix="_step")
    assert both.height == curves.filter(**own).height > 20
    assert both["loss"].equals(both["loss_step"].rename("loss"))
    assert curves["smooth"].is_finite().all()


def test_the_verdict_comes_first(opened: OpenedSweep):
    assert (
        repr(opened).splitlines()[0].startswith("hybrid is better than mha at m: mha needs 4.1 % more tokens")
    )
    assert repr(opened).splitlines()[-1] == "synthetic: 27 runs (27 finished)"
    assert opened._repr_html_().startswith("<p><b>hybrid is better than mha at m: ")


def test_names_do_nothing_in_a_notebook(tmp_path):
    sweep = sweep_of(tmp_path / "hostile", ("mha", HOSTILE.replace("/", "")), seeds=(0,), with_steps=False)
    assert "<img" not in harness.open_sweep(sweep.path)._repr_html_()


def test_the_comparison_is_the_command_s(opened: OpenedSweep, sweep: SweepDir):
    again = compare(sweep)
    assert (opened.comparison.rungs, opened.comparison.verdict) == (again.rungs, again.verdict)


def test_a_path_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "runs" / "attention", edit=lambda draft: draft.scale == "xs")
    with pytest.raises(UserError, match="did you mean 'runs/attention'"):
        harness.open_sweep("runs/atention")


def test_the_door_imports_nothing_until_it_is_used():
    code = "import sys, harness; assert 'polars' not in sys.modules; harness.open_sweep; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"altair", "vl_convert", "jax", "scipy.stats"} & {*done.stdout.split()}
    assert callable(harness.diff)
    with pytest.raises(AttributeError, match="open_swep"):
        _ = harness.open_swep


def test_the_script_recomputes_what_the_sweep_says(sweep: SweepDir, capsys):
    picture = recompute.main(str(sweep.path))
    assert picture.read_text().startswith("<svg")
    assert "hybrid - mha at xs: Effect(mean=-0.0" in capsys.readouterr().out
