"""What is said of a worker that ended: why, and where its log is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launcher.engines.engine_api import Exit, Order
from harness.launcher.engines.exit_messages import LONGEST, explained, spoken, telling
from harness.launcher.engines.grouped_processes import Gang, log_of
from harness.launcher.engines.slurm.queue import said_of

FAILED = Exit(1, "the worker ended with status 1")
ABORTED = Exit(-6, "the worker was ended by SIGABRT")


def order(folder: Path, **more) -> Order:
    return Order("xs/seed0", (), {}, folder / "xs-seed0.log", **more)


def says(made: Order, text: str, end: Exit, before: str = "") -> str:
    made.log.write_text(before)
    size = spoken(made)
    made.log.write_text(before + text)
    return explained(made, end, size)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback\n  File\njaxlib.XlaRuntimeError: no room\n---\nFor simplicity, frames were removed\n", 2),
        ("F1122 12:00 a.cc:3] Check failed: n > 0\n*** Check failure stack trace: ***\n    @ 0x7f\n", 0),
        ("Fatal Python error: Segmentation fault\n\nThread 0x1:\n  File x\n", 0),
        ("step 1\nsrun: error: n1: task 0: Killed\nsrun: launch done\n", 1),
        ("harness: line 3: exec: python: not found\n", 0),
    ],
)
def test_the_line_that_tells_is_quoted(tmp_path, log, line):
    said = log.splitlines()[line]
    assert telling(log) == said
    sentence = says(order(tmp_path), log, FAILED)
    assert sentence == f"{FAILED.words}: {said} (see {tmp_path}/xs-seed0.log)"


def test_of_a_signal_only_what_is_a_failure_is_quoted(tmp_path):
    made = order(tmp_path)
    assert says(made, "a warning\n", ABORTED) == f"{ABORTED.words} (see {made.log})"
    assert "Check failed: n" in says(made, "x.cc:3] Check failed: n\n@ 0x7f\n", ABORTED)


def test_what_an_earlier_worker_said_explains_nothing(tmp_path):
    made = order(tmp_path)
    assert says(made, "", ABORTED, before="OldError: x\n") == f"{ABORTED.words} (nothing in {made.log})"
    assert "NewError" in says(made, "NewError: x\n", FAILED, before="OldError: of yesterday\n")


def test_a_worker_that_died_before_it_could_write(tmp_path):
    assert explained(order(tmp_path), FAILED, {}).endswith(f"status 1 (nothing in {tmp_path}/xs-seed0.log)")


def test_what_the_scheduler_said_comes_first_and_no_line_is_endless(tmp_path):
    end = Exit(-9, "the worker was ended by SIGKILL", said="oom-kill")
    assert "SIGKILL: oom-kill (see" in says(order(tmp_path), "OtherError: x\n", end)
    assert len(says(order(tmp_path), "ValueError: " + "x" * 9999, FAILED)) < LONGEST + 200


def test_an_end_with_words_of_its_own_needs_no_log(tmp_path):
    end = Exit(None, "Slurm ended it at its time limit")
    assert says(order(tmp_path), "SomeError: earlier, and mended\n", end) == end.words


def test_of_several_processes_the_one_is_quoted_that_explains_the_others(tmp_path):
    made = order(tmp_path, processes=2)
    gang: Gang[int] = Gang([0, 1])
    ends = [Exit(1, "the worker ended with status 1"), Exit(-11, "the worker was ended by SIGSEGV")]
    end = gang.poll(ends.__getitem__, print)
    assert end is not None
    made.log.write_text("RuntimeError: lost process 1\n")
    log_of(made, 1).write_text("Fatal Python error: in a kernel\n")
    sentence = explained(made, end, {})
    assert sentence.startswith("process 1 of 2: the worker was ended by SIGSEGV: Fatal Python error")
    assert sentence.endswith("xs-seed0.1.log)")


def test_slurms_own_words_are_told_apart_by_its_number_of_the_job(tmp_path):
    log = tmp_path / "jobs-1.slurm.log"
    assert said_of("7", log, alone=True) == ""
    oom = "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=7.batch."
    ended = "slurmstepd-n1: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-22T18:00:00 ***"
    log.write_text(f"{oom}\n{ended}\nslurmstepd: error: execve(): Permission denied\n")
    assert said_of("7", log, alone=False) == oom
    assert said_of("17", log, alone=False) == ended
    assert said_of("1", log, alone=False) == ""
    assert "Permission denied" in said_of("7", log, alone=True)
