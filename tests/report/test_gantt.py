"""The fleet's panel: bars are the phases that the timelines tell of, whatever their number."""

from __future__ import annotations

import csv
import dataclasses
import io
import random
import time
from itertools import pairwise

import pytest

from harness.compare import compare
from harness.compare.results.comparison import INPUT_SHARE
from harness.records.paths import RunDir
from harness.records.run.status import State, Status, write_status
from harness.records.run.timeline import PhaseSpan
from harness.records.run.utilisation import utilisation
from harness.report.charts import gantt, panels, save_images
from harness.report.frames import sweep_frames
from harness.report.frames.lane_bars import merge_bars
from harness.report.frames.sweep_frames import read_frames
from harness.report.page import render
from tests.cli.test_watch import NOW, lines
from tests.compare.synthetic import Recipe, write_sweep


def lane(
    run: str, begin: float, *phases: tuple[str, float], width: int = 1, attempt: int = 1
) -> list[PhaseSpan]:
    found = []
    for phase, seconds in phases:
        found.append(PhaseSpan(phase, NOW + begin, NOW + begin + seconds, width, attempt, 0, 0))
        begin += seconds
    return found


@pytest.fixture
def content(tmp_path, told):
    """Three runs on two lanes, the third after a night."""
    sweep = write_sweep(tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=(), seeds=(0, 1)))
    night = 40_000
    lines(sweep.run("xs", "mha", 0), (0, "start", 0), (10, "train", 0), (60, "save", 64), (70, "end", 64))
    lines(
        sweep.run("xs", "hybrid", 0),
        (0, "start", 0),
        (20, "train", 0),
        (80, "evaluate", 64),
        (100, "end", 64),
    )
    lines(sweep.run("xs", "mha", 1), (night, "compile", 0), (night + 30, "train", 0), (night + 50, "end", 64))
    return read_frames(sweep, told)


def rows_of(chart) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(chart.to_dict(validate=True)["data"]["values"])))


def test_bars_are_the_phases_on_as_few_lanes_as_there_were(content):
    bars = [row for row in rows_of(gantt.gantt(content)) if row["kind"] == "bar"]
    told = {(row["label"], row["phase"], row["lane"], float(row["start"]), float(row["end"])) for row in bars}
    assert told == {
        ("xs/hybrid/seed0", "start", "1", 0, 20),
        ("xs/hybrid/seed0", "train", "1", 20, 80),
        ("xs/hybrid/seed0", "evaluate", "1", 80, 100),
        ("xs/mha/seed0", "start", "2", 0, 10),
        ("xs/mha/seed0", "train", "2", 10, 60),
        ("xs/mha/seed0", "save", "2", 60, 70),
        ("xs/mha/seed1", "compile", "1", 100, 130),
        ("xs/mha/seed1", "train", "1", 130, 150),
    }
    assert {row["devices"] for row in bars} == {"2"}


def test_the_title_says_what_was_used(content):
    title = gantt.gantt(content).to_dict()["title"]
    # (50 + 60 + 20) of 2 lanes x (100 + 50) s.
    assert title["text"] == "utilisation 43.3 % of 4 devices over 2:30"
    assert title["subtitle"][0].startswith("idle: no lane 26.7 %, start 10.0 %, compile 10.0 %")
    assert title["subtitle"][1] == "pauses of 11:05:00 left out"


def test_page_and_pictures_have_it(content, told, tmp_path):
    text = render.render_page(told, content)
    assert "<h2>Utilisation</h2>" in text
    assert 'id="chart-fleet"' in text
    assert "utilisation 43.3 %" in text
    written = save_images.write_picture(panels.panel_specs(told, content)["fleet"], tmp_path, "fleet")
    assert "xs/hybrid/seed0" in written[0].read_text()


def test_without_timelines_there_is_no_panel(sweep, told):
    assert "fleet" not in panels.panel_specs(told, sweep_frames.read_frames(sweep, told))


def test_a_run_that_is_taken_up_again_goes_on_in_its_row():
    lanes = {
        "a": lane("a", 0, ("train", 10)) + lane("a", 15, ("train", 10), attempt=2),
        "b": lane("b", 0, ("train", 8)),
    }
    rows = gantt.pack_rows(lanes)
    assert [[bar.run for bar in row] for row in rows] == [["a", "a"], ["b"]]


def test_no_two_bars_of_a_row_overlap():
    chance = random.Random(3)
    lanes = {
        str(i): lane(
            str(i), chance.uniform(0, 500), *[(p, chance.uniform(1, 40)) for p in ("start", "train")]
        )
        for i in range(60)
    }
    for row in gantt.pack_rows(lanes):
        assert all(a.end <= b.start + 1e-6 for a, b in pairwise(row))
    assert sum(len(row) for row in gantt.pack_rows(lanes)) == 120


def test_where_bars_are_many_each_moment_shows_what_fills_it():
    row = [
        gantt.PhaseBar("a", phase, i + start, i + end, 1)
        for i in range(1000)
        for phase, start, end in (("train", 0, 0.9), ("save", 0.9, 1.0))
    ]
    row += [gantt.PhaseBar("a", "evaluate", 1200, 1400, 1)]
    joined = merge_bars(row, 100, 1400)
    assert [(bar.phase, round(bar.start), round(bar.end)) for bar in joined] == [
        ("train", 0, 1008),
        ("evaluate", 1190, 1400),
    ]


def test_a_thousand_runs_stay_light(content):
    phases = [("start", 2), ("compile", 3), *[("train", 5), ("evaluate", 0.5), ("save", 0.2)] * 10]
    lanes = {f"m/variant{i % 9}/seed{i}": lane("", 70 * (i // 64), *phases) for i in range(1000)}
    started = time.process_time()
    spec = gantt.gantt(dataclasses.replace(content, lanes=lanes)).to_dict(validate=False)
    assert time.process_time() - started < 2
    assert len(spec["data"]["values"]) < 300_000
    assert "24 of 64 lanes are not drawn" in spec["title"]["subtitle"][-1]
    assert utilisation([*lanes.values()]).devices == 64


def test_the_page_names_the_run_that_waited_longest_for_its_input(content):
    runs = [f"xs/{variant}/seed{seed}" for seed in (0, 1) for variant in ("mha", "hybrid")]
    for run, share in zip(runs[:3], (0.25, 0.001, 0.02), strict=True):
        write_status(RunDir(content.sweep.path / run), Status(State.finished, 64, 64, input_share=share))
    comparison = compare(content.sweep)
    assert comparison.times[INPUT_SHARE] == dict(zip(runs[:3], (0.25, 0.001, 0.02), strict=True))
    text = render.render_page(comparison, content)
    assert "2 % of the training time of the median run, 25 % of the worst (xs/mha/seed0)." in text
    assert "of the median run" not in render.render_page(dataclasses.replace(comparison, times={}), content)
