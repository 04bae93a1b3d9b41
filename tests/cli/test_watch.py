"""Frames of the live view, from directories as they lie while a sweep runs, on a screen of fixed size."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from harness.cli import main
from harness.cli.views.watch_frame import draw_frame
from harness.core import atomic_files
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from harness.records.sweep import ledger
from harness.report.frames.sweep_progress import DELTA_STEPS, ProgressReader, SweepProgress
from tests.compare.synthetic import Recipe, write_sweep

NOW = 1_800_000_000.0


def screen(fleet: SweepProgress, width: int | None = 120, height: int | None = None) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width, color_system=None)
    console.print(draw_frame(fleet, width, height), soft_wrap=width is None)
    return output.getvalue()


def line_of(text: str, name: str) -> str:
    (found,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return found


def lines(run: RunDir, *phases: tuple[float, str, int], attempt: int = 1, share: float = 1.0) -> None:
    """Phases that began so many seconds from NOW."""
    with run.timeline.open("a") as file:
        for moment, phase, step in phases:
            entry = {"time": NOW + moment, "phase": phase, "attempt": attempt, "width": 2}
            file.write(str(entry | {"step": step, "share": share}).replace("'", '"') + "\n")


def put(run: RunDir, state: State, step: int, **changes) -> None:
    write_status(run, dataclasses.replace(read_status(run), state=state, step=step, **changes))


@pytest.fixture
def sweep(tmp_path) -> SweepDir:
    """Six runs of 64 steps: two at work, one ended, one failed, two queued."""
    made = write_sweep(tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=()))
    here = ProcessInfo.current()
    for run in made.runs():
        write_status(run, Status(steps=64))
    put(made.run("xs", "mha", 0), State.finished, 64, loss=2.5)
    lines(
        made.run("xs", "mha", 0), (-100, "start", 0), (-98, "train", 0), (-60, "save", 64), (-58, "end", 64)
    )
    for variant, step, loss in (("mha", 48, 3.25), ("hybrid", 32, 3.5)):
        run = made.run("xs", variant, 1)
        put(run, State.running, step, phase="train", attempt=1, loss=loss, writer=here)
        lines(run, (-58, "start", 0), (-56, "compile", 0), (-40, "train", 0))
    failed = made.run("xs", "hybrid", 0)
    put(failed, State.oom, 7, message="out of memory: 9 GB of 8 GB")
    places = {
        f"xs/{v}/seed1": {"block": "xs/seed1", "lane": i, "mesh": {}} for i, v in enumerate(("mha", "hybrid"))
    }
    ledger.append(made, "placement", {"runs": places})
    return made


def test_a_line_for_each_run_at_work(sweep):
    text = screen(ProgressReader(sweep).read(NOW))
    assert line_of(text, "run").split() == [
        "run",
        "lane",
        "phase",
        "step",
        "loss",
        "Δ",
        "mha",
        "tokens/s",
        "left",
    ]
    assert text.index("xs/mha/seed1") < text.index("xs/hybrid/seed1"), "the control comes first"
    control = line_of(text, "xs/mha/seed1").split()
    assert [word for word in control if "━" not in word] == [
        "xs/mha/seed1", "0", "×2", "train", "48/64", "3.2500", "–", control[-2], "0:13",
    ]  # fmt: skip
    assert "32/64" in line_of(text, "xs/hybrid/seed1")
    assert "1 ×2" in line_of(text, "xs/hybrid/seed1")
    assert line_of(text, "xs/hybrid/seed1").endswith("0:40")
    facts = ProgressReader(sweep).read(NOW).running[0].record.facts
    assert ProgressReader(sweep).read(NOW).running[0].tokens_per_second == pytest.approx(
        48 / 40 * facts.tokens_per_step
    )


def test_what_of_its_time_a_run_waits_for_input_where_it_is_known(sweep):
    assert "input" not in screen(ProgressReader(sweep).read(NOW), width=140)
    put(sweep.run("xs", "mha", 1), State.running, 48, input_share=0.1234)
    for width in (140, 120, None):
        text = screen(ProgressReader(sweep).read(NOW), width=width)
        assert line_of(text, "run").split()[-1] == "input"
        assert line_of(text, "xs/mha/seed1").split()[-1] == "12.3%"
        assert line_of(text, "xs/hybrid/seed1").split()[-1] == "–"


def test_queue_ends_and_failures_are_told_in_words(sweep):
    text = screen(ProgressReader(sweep).read(NOW))
    assert line_of(text, "xs/hybrid/seed0").strip() == (
        "xs/hybrid/seed0: oom at step 7 (out of memory: 9 GB of 8 GB)"
    )
    assert line_of(text, "queue:").strip() == "queue: xs/hybrid/seed2, xs/mha/seed2"
    assert line_of(text, "ended:").strip() == "ended: 1 of 6"


def test_the_whole_is_told_in_shares_of_its_flops(sweep):
    fleet = ProgressReader(sweep).read(NOW)
    assert fleet.done_share == pytest.approx((64 + 48 + 32 + 7) / (6 * 64), rel=1e-3)
    # 64 + 48 + 32 steps took 118 s of training. 32 steps are left beside 16, then 18 s and 64 steps.
    assert fleet.left is not None
    assert fleet.left.low < 118 / 144 * (32 + 64) + 18 < fleet.left.high < 180
    assert "trial: 6 runs, 39% done" in screen(fleet)
    assert f"tokens/s, {fleet.left.text}\n" in screen(fleet)


def test_utilisation_counts_the_lanes_until_now(sweep):
    used = ProgressReader(sweep).read(NOW).utilisation
    assert (used.devices, used.seconds) == (4, 100)
    assert used.work == 2 * (38 + 40 + 40)
    assert "utilisation 59.0 % of 4 devices over 1:40; idle: no lane" in screen(
        ProgressReader(sweep).read(NOW)
    )


def test_the_difference_is_over_steps_that_both_have(sweep):
    run, control = sweep.run("xs", "hybrid", 1), sweep.run("xs", "mha", 1)
    metrics.truncate_after(run, 30)
    metrics.truncate_after(control, 45)
    tables = [
        pl.concat([pl.read_parquet(p) for p in sorted(each.metrics.glob("steps-*"))]).sort("step")
        for each in (run, control)
    ]
    ours, theirs = ({r["step"]: r["loss"] for r in table.to_dicts()} for table in tables)
    mean = sum(ours[step] - theirs[step] for step in range(31 - DELTA_STEPS, 31)) / DELTA_STEPS
    text = screen(ProgressReader(sweep).read(NOW))
    assert f"{mean:+.4f} @30" in line_of(text, "xs/hybrid/seed1")
    assert "that both have on disk" in text


def test_without_a_common_step_there_is_no_difference(sweep):
    metrics.truncate_after(sweep.run("xs", "mha", 1), 0)
    assert ProgressReader(sweep).read(NOW).running[1].delta is None
    assert "on disk" not in screen(ProgressReader(sweep).read(NOW))


def test_a_run_whose_worker_died_is_not_at_work(sweep):
    gone = dataclasses.replace(ProcessInfo.current(), started="another")
    put(sweep.run("xs", "mha", 1), State.running, 48, writer=gone)
    fleet = ProgressReader(sweep).read(NOW)
    assert [run.name for run in fleet.running] == ["xs/hybrid/seed1"]
    assert "xs/mha/seed1" in line_of(screen(fleet), "queue:")


def test_a_look_reads_what_changed_since_the_last(sweep):
    watcher = ProgressReader(sweep)
    watcher.read(NOW)
    put(sweep.run("xs", "mha", 1), State.running, 60, loss=3.0)
    lines(sweep.run("xs", "mha", 1), (0, "evaluate", 60))
    words = line_of(screen(watcher.read(NOW + 1)), "xs/mha/seed1").split()
    assert {"evaluate", "60/64", "3.0000"} <= {*words}


def test_a_branch_is_named(sweep):
    lines(sweep.run("xs", "mha", 1), (-1, "train", 48), share=0.4)
    assert "branch 40%: train" in line_of(screen(ProgressReader(sweep).read(NOW)), "xs/mha/seed1")


@pytest.mark.parametrize("width", [40, 60, 80, 99, 120])
def test_every_column_is_shown_on_every_screen(sweep, width):
    put(sweep.run("xs", "mha", 1), State.running, 48, input_share=0.1234)
    text = screen(ProgressReader(sweep).read(NOW), width)
    assert max(map(len, text.splitlines())) <= width
    wide = screen(ProgressReader(sweep).read(NOW), None)
    for line in ("run", "xs/mha/seed1", "xs/hybrid/seed1"):
        assert set(line_of(wide, line).split()) <= set(text.split())


def test_a_low_screen_is_not_overrun(tmp_path):
    made = write_sweep(
        tmp_path / "many", Recipe(scales={"xs": 10**7}, seeds=tuple(range(30)), with_steps=False)
    )
    for run in made.runs():
        put(run, State.running, 5, phase="train", writer=ProcessInfo.current())
    text = screen(ProgressReader(made).read(NOW), height=24)
    assert len(text.splitlines()) <= 24
    assert "and 50 more running" in text


def test_text_of_a_run_cannot_move_the_cursor(sweep):
    put(sweep.run("xs", "hybrid", 0), State.failed, 7, message="\x1b[2Jboo [red]x[/red]")
    text = screen(ProgressReader(sweep).read(NOW))
    assert "\x1b" not in text
    assert "[red]x[/red]" in text


def test_it_writes_nothing(sweep):
    before = {path: path.stat().st_mtime_ns for path in sweep.path.rglob("*")}
    ProgressReader(sweep).read(NOW)
    assert {path: path.stat().st_mtime_ns for path in sweep.path.rglob("*")} == before


def test_over_when_nobody_is_at_work(sweep):
    assert not ProgressReader(sweep).read(NOW).is_over
    for variant in ("mha", "hybrid"):
        put(sweep.run("xs", variant, 1), State.preempted, 20, writer=None)
    fleet = ProgressReader(sweep).read(NOW)
    assert fleet.is_over
    assert "continues unfinished runs" in screen(fleet)


def test_once_prints_a_frame(sweep, capsys):
    assert main(["watch", str(sweep.path), "--once"]) == 0
    assert "6 runs" in capsys.readouterr().out


def test_a_sweep_that_is_not_there(tmp_path, monkeypatch, capsys):
    atomic_files.write_json(tmp_path / "runs" / "attention" / "rule.json", {})
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "runs/atention", "--once"]) == 2
    assert capsys.readouterr().err.strip() == ("runs/atention is not a sweep; did you mean 'runs/attention'?")


@pytest.mark.parametrize("key", ["q", "\x03", ""])
def test_it_leaves_on_a_key_and_when_the_sweep_is_over(sweep, key):
    ours, process = _watch(sweep.path)
    _read_until(ours, b"48/64")
    if key:
        os.write(ours, key.encode())
    else:
        for variant in ("mha", "hybrid"):
            put(sweep.run("xs", variant, 1), State.finished, 64, writer=None)
        _read_until(ours, b"ended: 3 of 6")
    assert process.wait(timeout=30) == 0
    os.close(ours)


@pytest.mark.parametrize("key", ["q", ""])
def test_it_waits_for_a_sweep_that_has_not_begun(key, tmp_path):
    ours, process = _watch(tmp_path / "trial")
    _read_until(ours, b"Waiting for the sweep to begin (Ctrl-C leaves)")
    if key:
        os.write(ours, key.encode())
    else:
        assert process.poll() is None
        write_sweep(tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=()))
        _read_until(ours, b"6 runs")
    assert process.wait(timeout=30) == 0
    os.close(ours)


def test_in_a_pipe_it_waits_too_and_a_mistyped_path_is_told_at_once(tmp_path):
    atomic_files.write_json(tmp_path / "runs" / "attention" / "rule.json", {})
    command = [sys.executable, "-P", "-m", "harness", "watch", "runs/atention"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    assert process.stderr
    line = process.stderr.readline()
    assert line.startswith("Waiting for the sweep to begin (Ctrl-C leaves): runs/atention is not a sweep")
    assert line.endswith("did you mean 'runs/attention'?\n")
    write_sweep(tmp_path / "runs" / "atention", Recipe(scales={"xs": 10**7}, branches=()))
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, ""), "it is told once"
    assert "6 runs" in output


def test_a_url_is_not_waited_for(tmp_path):
    ours, process = _watch("s3://bucket/trial")
    _read_until(ours, b"this must be a path")
    assert process.wait(timeout=30) == 2
    os.close(ours)


def _watch(sweep: Path | str) -> tuple[int, subprocess.Popen]:
    """Start the command in a terminal of its own. Returns our end of the terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "harness.cli", "watch", str(sweep)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=_leads
    )
    os.close(theirs)
    return ours, process


def _leads() -> None:
    """The terminal is the child's own, so that Ctrl-C reaches it, even where these tests run in the
    background of a shell, which has its children ignore it."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_until(terminal: int, wanted: bytes) -> None:
    seen, deadline = b"", time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(terminal, 65536)
