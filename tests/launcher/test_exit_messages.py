"""What is said of a worker that ended: why, and where its log is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launcher.engines.engine_api import Exit, WorkerSpec
from harness.launcher.engines.slurm.queue import last_slurm_message
from harness.launcher.engines.worker_processes import (
    MAX_QUOTED_CHARACTERS,
    ProcessGroupHandle,
    exit_message,
    last_error_line,
    log_sizes,
    process_log,
)

FAILED = Exit(1, "the worker ended with status 1")
ABORTED = Exit(-6, "the worker was ended by SIGABRT")


def order(folder: Path, **more) -> WorkerSpec:
    return WorkerSpec("xs/seed0", (), {}, folder / "xs-seed0.log", **more)


def says(made: WorkerSpec, text: str, end: Exit, before: str = "") -> str:
    made.log.write_text(before)
    size = log_sizes(made)
    made.log.write_text(before + text)
    return exit_message(made, end, size)


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
    assert last_error_line(log.splitlines()) == said
    sentence = says(order(tmp_path), log, FAILED)
    assert sentence == f"{FAILED.message}: {said} (see {tmp_path}/xs-seed0.log)"


def test_of_a_signal_only_what_is_a_failure_is_quoted(tmp_path):
    made = order(tmp_path)
    assert says(made, "a warning\n", ABORTED) == f"{ABORTED.message} (see {made.log})"
    assert "Check failed: n" in says(made, "x.cc:3] Check failed: n\n@ 0x7f\n", ABORTED)


def test_what_an_earlier_worker_said_explains_nothing(tmp_path):
    made = order(tmp_path)
    assert says(made, "", ABORTED, before="OldError: x\n") == f"{ABORTED.message} (nothing in {made.log})"
    assert "NewError" in says(made, "NewError: x\n", FAILED, before="OldError: of yesterday\n")


def test_a_worker_that_died_before_it_could_write(tmp_path):
    assert exit_message(order(tmp_path), FAILED, {}).endswith(
        f"status 1 (nothing in {tmp_path}/xs-seed0.log)"
    )


def test_what_the_scheduler_said_comes_first_and_no_line_is_endless(tmp_path):
    end = Exit(-9, "the worker was ended by SIGKILL", scheduler_message="oom-kill")
    assert "SIGKILL: oom-kill (see" in says(order(tmp_path), "OtherError: x\n", end)
    assert len(says(order(tmp_path), "ValueError: " + "x" * 9999, FAILED)) < MAX_QUOTED_CHARACTERS + 200


def test_an_end_with_words_of_its_own_needs_no_log(tmp_path):
    end = Exit(None, "Slurm ended it at its time limit")
    assert says(order(tmp_path), "SomeError: earlier, and mended\n", end) == end.message


def test_of_several_processes_the_one_is_quoted_that_explains_the_others(tmp_path):
    made = order(tmp_path, processes=2)
    gang: ProcessGroupHandle[int] = ProcessGroupHandle([0, 1])
    ends = [Exit(1, "the worker ended with status 1"), Exit(-11, "the worker was ended by SIGSEGV")]
    end = gang.poll(ends.__getitem__, print)
    assert end is not None
    made.log.write_text("RuntimeError: lost process 1\n")
    process_log(made, 1).write_text("Fatal Python error: in a kernel\n")
    sentence = exit_message(made, end, {})
    assert sentence.startswith("process 1 of 2: the worker was ended by SIGSEGV: Fatal Python error")
    assert sentence.endswith("xs-seed0.1.log)")


def test_slurms_own_words_are_told_apart_by_its_number_of_the_job(tmp_path):
    log = tmp_path / "jobs-1.slurm.log"
    assert last_slurm_message("7", log, single_job=True) == ""
    oom = "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=7.batch."
    ended = "slurmstepd-n1: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-22T18:00:00 ***"
    log.write_text(f"{oom}\n{ended}\nslurmstepd: error: execve(): Permission denied\n")
    assert last_slurm_message("7", log, single_job=False) == oom
    assert last_slurm_message("17", log, single_job=False) == ended
    assert last_slurm_message("1", log, single_job=False) == ""
    assert "Permission denied" in last_slurm_message("7", log, single_job=True)
