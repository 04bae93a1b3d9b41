"""Progress of a sweep: a rate and a time left of the whole machine, once they mean something."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.workers import progress
from harness.launcher.workers.progress import BarDisplay, LineDisplay, SweepPace
from harness.records.run.pace import PredictedParts
from harness.records.run.status import State, Status, write_status
from tests.launcher.support import STEPS, configs, facts


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    moment = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: moment[0])
    monkeypatch.setattr(progress.time, "time", lambda: moment[0])

    def wait(seconds: float) -> None:
        moment[0] += seconds

    return wait


@pytest.fixture
def runs(tmp_path):
    made = configs(tmp_path)
    return [Run(config, facts(config), run_dir(sweep_dir(made), config)) for config in made]


def put(run: Run, step: int, state: State = State.running) -> Status:
    """Write the status of a run that claims a million tokens a second for its last step, and its timeline."""
    run.dir.path.mkdir(parents=True, exist_ok=True)
    status = Status(state, step, STEPS, loss=3.0, tokens_per_second=1e6)
    write_status(run.dir, status)
    phases = ["end"] if state.is_final else ["train"] if run.dir.timeline.exists() else ["start", "train"]
    with run.dir.timeline.open("a") as file:
        for phase in phases:
            line = {"time": progress.time.time(), "phase": phase, "attempt": 1, "width": 1, "step": step}
            file.write(json.dumps(line) + "\n")
    return status


def seconds_in(text: str) -> list[int]:
    """The times in a text, in seconds."""
    return [60 * int(minutes) + int(seconds) for minutes, seconds in re.findall(r"(\d+):(\d\d)", text)]


def test_a_rate_is_all_tokens_over_the_time_since_the_first_step(runs, clock):
    pace = SweepPace(runs)
    clock(50)  # workers start and compile
    for run in runs[:2]:
        pace.update(run, put(run, 1))
    assert pace.text == ""
    clock(10)
    for run in runs[:2]:
        pace.update(run, put(run, 6))
    speed, left = pace.text.split(" tokens/s, ")
    assert speed == f"{(5 + 6) * 1280 / 10:,.0f}"
    low, high = seconds_in(left)
    assert low < 28 + 40 < high < 2 * 68, "14 steps of 2 s, and then two runs more beside each other"
    assert pace.share == pytest.approx(12 / 80)


def test_the_first_steps_predict_nothing(runs, clock):
    pace = SweepPace(runs)
    pace.update(runs[0], put(runs[0], 1))
    clock(1)
    pace.update(runs[0], put(runs[0], 8))
    assert pace.text == "", "a second says little"
    clock(9)
    pace.update(runs[1], put(runs[1], 0))
    assert "left" in pace.text


def test_predictions_tell_how_unequal_runs_compare(runs, clock):
    """Half of a run that was predicted to be short is done after 10 s; the others take nine times as long."""
    predicted = {run.name: PredictedParts(0.0, 180.0, 0.0, STEPS) for run in runs}
    predicted[runs[0].name] = PredictedParts(0.0, 20.0, 0.0, STEPS)
    pace = SweepPace(runs, predicted)
    pace.update(runs[0], put(runs[0], 0))
    clock(10)
    pace.update(runs[0], put(runs[0], STEPS // 2))
    low, high = seconds_in(pace.text)
    assert low < 10 + 3 * 180 < high, pace.text
    assert high < 2 * low


def test_the_time_left_of_a_run_that_failed_is_nothing(runs, clock):
    pace = SweepPace(runs)
    pace.update(runs[0], put(runs[0], 1))
    pace.update(runs[1], put(runs[1], 0))
    clock(10)
    for run in runs[1:]:
        pace.update(run, put(run, 0, State.refused))
    pace.update(runs[0], put(runs[0], 11))
    assert pace.text.startswith("1,280 tokens/s, ")
    low, high = seconds_in(pace.text)
    assert low < 9 < high < 25
    assert pace.share == pytest.approx((11 + 3 * STEPS) / 80)


def test_what_was_done_before_this_launch_is_not_its_pace(runs, clock):
    for run in runs[:3]:
        put(run, STEPS)
        clock(1)
        put(run, STEPS, State.finished)
    pace = SweepPace(runs)
    pace.update(runs[3], put(runs[3], 10))
    clock(10)
    pace.update(runs[3], put(runs[3], 15))
    assert pace.text.startswith("640 tokens/s, ")
    assert seconds_in(pace.text)[-1] <= 25


def test_lines_and_bars_name_the_time_left_once(runs, clock):
    output = io.StringIO()
    lines = LineDisplay(runs, Console(file=output, width=200))
    bars = BarDisplay(runs, Console(file=io.StringIO(), width=200, force_terminal=True))
    for step in (0, 2, 5):
        clock(10)
        for run in runs[:2]:
            put(run, step)
        lines.show(runs[:2])
        bars.show(runs[:2])
    first, second, last = output.getvalue().splitlines()
    assert first == "  0% done, 2 runs at work"
    assert second.startswith("  5% done, 2 runs at work")
    assert re.fullmatch(r" 12% done, 2 runs at work, [\d,]+ tokens/s, \d+:\d\d to \d+:\d\d left", last)
    paper = io.StringIO()
    console = Console(file=paper, width=200)
    console.print(bars._progress.get_renderable())
    bars.close()
    drawn = paper.getvalue()
    assert drawn.count("left") == 1
    assert len(re.findall(r"\d:\d\d", drawn)) == 2
    assert drawn.count("tokens/s") == 1


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_name_beside_a_bar_is_never_cut(runs, width):
    bars = BarDisplay(runs, Console(file=io.StringIO(), width=width, force_terminal=True))
    put(runs[0], 2)
    bars.show(runs[:1])
    paper = io.StringIO()
    console = Console(file=paper, width=width)
    console.print(bars._progress.get_renderable())
    bars.close()
    drawn = paper.getvalue()
    assert "…" not in drawn
    assert max(map(len, drawn.splitlines())) <= width
    assert f"{runs[0].name} " in drawn
    assert "loss 3.000" in " ".join(drawn.split())
