"""An array of tasks that share one work: it ends with the first that finds the work done."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit, WorkerSpec
from harness.launcher.sweep_lock import Interrupted
from harness.launcher.workers import task_array
from harness.launcher.workers.task_array import LEFT_EARLY, TaskArray, TasksFailed

RUNNING = None
DONE, MISTAKE, LEFT = Exit(0, "done"), Exit(2, "ended with status 2"), Exit(LEFT_EARLY, "left")
KILLED, LOST = Exit(-9, "ended by SIGKILL"), Exit(None, "its node failed", preempted=True)


@dataclass
class ScriptedEngine:
    """Each start of a task goes through the answers of its script; the last one stays."""

    scripts: dict[str, list[list[Exit | None]]]
    starts: list[str] = field(default_factory=list)
    cancelled: list[tuple[str, bool]] = field(default_factory=list)
    closed: int = 0

    def submit(self, spec: WorkerSpec) -> list:
        self.starts.append(spec.name)
        return [spec.name, self.scripts[spec.name].pop(0)]

    def poll(self, handle: list) -> Exit | None:
        answers = handle[1]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def waiting(self, handle: list) -> str:
        return "waits in the queue" if handle[1][0] is None else ""

    def cancel(self, handle: list, *, hard: bool) -> None:
        self.cancelled.append((handle[0], hard))
        handle[1][:] = [Exit(-15, "cancelled")]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(task_array, "TICK_SECONDS", 0.001)


def array(scripts, progress=lambda: 0.0, **settings) -> tuple[TaskArray, ScriptedEngine, list[str]]:
    notes: list[str] = []
    engine = ScriptedEngine(scripts)
    made = TaskArray(engine, progress, notes.append, backoff_seconds=0.0, **settings)  # pyright: ignore
    return made, engine, notes


def specs(folder: Path, *names: str) -> list[WorkerSpec]:
    return [WorkerSpec(name, (folder / f"{name}.json",), {}, folder / f"{name}.log") for name in names]


def test_the_first_task_that_ends_well_ends_the_array(tmp_path):
    made, engine, notes = array({"a": [[RUNNING, RUNNING, DONE]], "b": [[RUNNING]], "c": [[RUNNING]]})
    made.run(specs(tmp_path, "a", "b", "c"))
    assert engine.starts == ["a", "b", "c"]
    assert engine.cancelled == [("b", False), ("c", False)]
    assert engine.closed
    assert notes == ["a waits in the queue"], "each reason once"


@pytest.mark.parametrize("end", [LOST, KILLED])
def test_a_lost_task_is_started_again(tmp_path, end):
    made, engine, _ = array({"a": [[end], [RUNNING, DONE]]})
    made.run(specs(tmp_path, "a"))
    assert engine.starts == ["a", "a"]


def test_one_that_left_for_its_time_limit_counts_only_without_progress(tmp_path):
    amounts = iter(range(1000))
    made, engine, _ = array({"a": [*[[LEFT]] * 5, [DONE]]}, progress=lambda: next(amounts), attempts=2)
    made.run(specs(tmp_path, "a"))
    assert len(engine.starts) == 6
    made, engine, _ = array({"a": [[LEFT]] * 5}, attempts=2)
    with pytest.raises(TasksFailed, match="a: left"):
        made.run(specs(tmp_path, "a"))
    assert len(engine.starts) == 2


def test_a_task_that_keeps_failing_is_given_up_and_the_rest_goes_on(tmp_path):
    made, engine, notes = array({"a": [[KILLED]] * 3, "b": [[*[RUNNING] * 200, DONE]]})
    made.run(specs(tmp_path, "a", "b"))
    assert engine.starts.count("a") == 3
    assert notes[-1] == "a: ended by SIGKILL (nothing in " + f"{tmp_path}/a.log); it is given up"


def test_a_users_mistake_ends_all_with_the_words_of_the_task(tmp_path):
    sentence = "data.sources.own.path=web: a.txt is not UTF-8: convert it"
    (tmp_path / "a.log").write_text("of an earlier start\n")
    made, engine, _ = array({"a": [[RUNNING, MISTAKE]], "b": [[RUNNING]]})
    submit = engine.submit

    def write(spec: WorkerSpec) -> list:
        with spec.log.open("a") as log:
            log.write(f"{sentence}\n")
        return submit(spec)

    engine.submit = write
    with pytest.raises(UserError) as error:
        made.run(specs(tmp_path, "a", "b"))
    assert str(error.value) == sentence
    assert engine.cancelled == [("b", False)]


def test_an_interruption_asks_every_task_to_leave(tmp_path):
    made, engine, _ = array({"a": [[RUNNING]], "b": [[RUNNING]]})
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted):
        made.run(specs(tmp_path, "a", "b"))
    assert engine.cancelled == [("a", False), ("b", False)]
    assert engine.closed


def test_tasks_are_left_alone_once_they_are_submitted(tmp_path):
    made, engine, _ = array({"a": [[RUNNING]], "b": [[RUNNING]]})
    made.submit(specs(tmp_path, "a", "b"))
    assert (engine.starts, engine.cancelled, engine.closed) == (["a", "b"], [], 1)
    made, _, _ = array({"a": [[Exit(None, "Slurm refuses the job")]]})
    with pytest.raises(UserError, match="refuses"):
        made.submit(specs(tmp_path, "a"))
