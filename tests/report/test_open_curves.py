"""Logs opened in Python say what a sweep opened in Python says."""

from __future__ import annotations

import math

import polars as pl
import pytest

import harness
from harness.compare import compare_curves
from harness.compare.inputs.importers.open_logs import LogReading
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.report.open_curves import OpenedCurves
from harness.report.open_sweep import OpenedSweep


def log() -> pl.DataFrame:
    rows = [
        (v, scale, seed, 10 * i, 1000 * i * size,
         4 / size**0.1 - 0.1 * math.log(i) - 0.01 * (v == "b") + 3e-4 * math.sin(9 * seed + ord(v)), i == 10)
        for v in "ab" for size, scale in enumerate(("s", "m"), 1) for seed in range(3) for i in range(1, 11)
    ]  # fmt: skip
    names = ("variant", "scale", "seed", "step", "tokens", "loss", "decayed")
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture(scope="module")
def opened() -> OpenedCurves:
    return harness.open_curves(log())


def public_names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_all_that_an_opened_sweep_has_is_here_and_works(opened: OpenedCurves, sweep: SweepDir):
    names = public_names(OpenedSweep)
    assert names <= public_names(OpenedCurves)
    of_sweep = harness.open_sweep(sweep.path)
    frames = [name for name in names if isinstance(getattr(of_sweep, name, None), pl.DataFrame)]
    assert {"runs", "evals", "steps", "effects"} <= {*frames}
    for name in frames:
        ours, theirs = getattr(opened, name), getattr(of_sweep, name)
        assert {*ours.schema.items()} == {*theirs.schema.items()}, name
    assert opened.figures
    for name in opened.figures:
        assert opened.figure(name).to_dict()
    with pytest.raises(UserError, match="no such chart"):
        opened.figure("nothing")
    assert "<table" in opened._repr_html_()


def test_frames_are_those_of_the_log(opened: OpenedCurves):
    rows = opened.evals.sort("variant", "scale", "seed", "step")
    names = ["variant", "scale", "seed", "step", "tokens", "loss", "decayed"]
    expected = log().sort("variant", "scale", "seed", "step").select(names)
    assert rows.select(names).rows() == expected.rows()
    assert opened.runs.height == 12
    ends = expected.filter(step=100).select("variant", "scale", "seed", "loss")
    assert {*opened.runs.select("variant", "scale", "seed", "loss").iter_rows()} == {*ends.iter_rows()}
    assert opened.runs["parameters"].null_count() == 12
    assert opened.steps.is_empty()


def test_the_verdict_is_that_of_the_comparison(opened: OpenedCurves, tmp_path):
    comparison = compare_curves(log())
    assert opened.comparison.rungs == comparison.rungs
    assert opened.effects.filter(scale="s")["mean"].to_list() == [comparison.rungs[0].delta.mean]
    assert repr(opened).startswith("Read: 1 table")
    path = tmp_path / "log.csv"
    log().rename({"loss": "val"}).write_csv(path)
    named = harness.open_curves(path, LogReading({"loss": "val"}), control="b")
    assert named.comparison.rungs[0].control == "b"
