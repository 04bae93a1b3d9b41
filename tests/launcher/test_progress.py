"""Progress of a sweep: a rate and a time left of the whole machine, once they mean something."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.workers import progress
from harness.launcher.workers.progress import BarDisplay, LineDisplay, SweepPace
from harness.records.run.status import State, Status, write_status
from tests.launcher.support import STEPS, configs, facts


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    moment = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: moment[0])

    def wait(seconds: float) -> None:
        moment[0] += seconds

    return wait


@pytest.fixture
def runs(tmp_path):
    made = configs(tmp_path)
    return [Run(config, facts(config), run_dir(sweep_dir(made), config)) for config in made]


def put(run: Run, step: int, state: State = State.running) -> Status:
    """Write the status of a run that claims a million tokens a second for its last step."""
    run.dir.path.mkdir(parents=True, exist_ok=True)
    status = Status(state, step, STEPS, loss=3.0, tokens_per_second=1e6)
    write_status(run.dir, status)
    return status


def test_a_rate_is_all_tokens_over_the_time_since_the_first_step(runs, clock):
    pace = SweepPace(runs)
    clock(50)  # workers start and compile
    pace.update(runs[0], put(runs[0], 1))
    assert pace.text == ""
    clock(10)
    for run in runs[:2]:
        pace.update(run, put(run, 6))
    tokens = (5 + 6) * 1280
    left = 10 * (4 * STEPS - 12) / 11
    assert pace.text == f"{tokens / 10:,.0f} tokens/s, {progress.format_clock(left)} left"
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


def test_a_slow_sweep_has_a_pace_after_a_minute(runs, clock):
    pace = SweepPace(runs)
    pace.update(runs[0], put(runs[0], 1))
    clock(59)
    pace.update(runs[0], put(runs[0], 2))
    assert pace.text == "", "1 step of 80 is less than 5 %"
    clock(2)
    pace.update(runs[0], put(runs[0], 2))
    assert pace.text.endswith("1:19:18 left")


def test_a_run_that_failed_is_not_counted_as_trained(runs, clock):
    pace = SweepPace(runs)
    pace.update(runs[0], put(runs[0], 1))
    clock(10)
    pace.update(runs[1], put(runs[1], 0, State.failed))
    pace.update(runs[0], put(runs[0], 11))
    assert pace.text.startswith("1,280 tokens/s, ")
    assert pace.share == pytest.approx((11 + (20 if State.failed.is_final else 0)) / 80)


def test_what_was_done_before_this_launch_is_not_its_pace(runs, clock):
    for run in runs[:3]:
        put(run, STEPS, State.finished)
    pace = SweepPace(runs)
    pace.update(runs[3], put(runs[3], 10))
    clock(10)
    pace.update(runs[3], put(runs[3], 15))
    assert pace.text == "640 tokens/s, 0:10 left"


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
    assert second == "  5% done, 2 runs at work"
    assert re.fullmatch(r" 12% done, 2 runs at work, [\d,]+ tokens/s, \d+:\d\d left", last)
    paper = io.StringIO()
    console = Console(file=paper, width=200)
    console.print(bars._progress.get_renderable())
    bars.close()
    drawn = paper.getvalue()
    assert drawn.count("left") == 1
    assert len(re.findall(r"\d:\d\d", drawn)) == 1
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
