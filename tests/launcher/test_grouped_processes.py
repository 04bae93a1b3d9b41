"""Several workers of one order, seen as one."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import ALREADY_RUNNING, Exit, WorkerSpec
from harness.launcher.engines.worker_processes import EXIT_GRACE_SECONDS, ProcessGroupHandle
from harness.launcher.sweep import launch
from harness.records.paths import RunDir
from harness.records.run.status import State, Status, write_status
from tests.launcher.support import configs, tools, train

KILLED = Exit(-9, "the worker was ended by SIGKILL")


class Members:
    """Two workers, by what they said so far."""

    def __init__(self) -> None:
        self.exits: dict[str, Exit] = {}
        self.ended: list[str] = []
        self.now = 100.0
        self.gang = ProcessGroupHandle(["first", "second"], clock=lambda: self.now)

    def poll(self) -> Exit | None:
        return self.gang.poll(self.exits.get, self.ended.append)


def test_it_ends_when_all_have():
    members = Members()
    members.exits["first"] = Exit(0, "done")
    assert members.poll() is None
    members.exits["second"] = Exit(0, "done")
    assert members.poll() == Exit(0, "done")


def test_the_one_that_was_killed_is_named():
    members = Members()
    members.exits["first"] = Exit(3, "the worker ended with status 3")
    members.poll()
    members.exits["second"] = KILLED
    assert members.poll() == Exit(-9, "process 1 of 2: the worker was ended by SIGKILL")


def test_one_that_outlives_the_others_too_long_is_ended():
    members = Members()
    members.exits["second"] = KILLED
    assert members.poll() is None
    members.now += EXIT_GRACE_SECONDS
    assert members.poll() is None
    assert members.ended == []
    members.now += 1
    members.poll()
    members.poll()
    assert members.ended == ["first"]


def test_a_machine_that_was_taken_away_explains_the_ends_of_others():
    members = Members()
    members.exits["second"] = KILLED
    members.poll()
    members.exits["first"] = Exit(None, "its node was lost", preempted=True)
    assert members.poll() == Exit(None, "process 0 of 2: its node was lost", preempted=True)


def test_a_run_in_other_hands_is_not_lost():
    members = Members()
    members.exits["first"] = Exit(ALREADY_RUNNING, "held")
    members.exits["second"] = Exit(3, "the worker ended with status 3")
    assert members.poll() == Exit(ALREADY_RUNNING, "held")


@pytest.mark.parametrize(("count", "isolation"), [(3, "block"), (0, "block"), (2, "all")])
def test_processes_that_cannot_share_a_run_are_refused_before_anything_is_written(tmp_path, count, isolation):
    made = configs(tmp_path, seeds=(0,), processes=count, isolation=isolation)
    for config in made:
        config.mesh = MeshConfig(data=4)
    with pytest.raises(UserError, match=f"engine.processes={count}"):
        train(made)
    assert not [*tmp_path.iterdir()]


def test_one_process_holds_the_chips_of_a_host(tmp_path):
    made = configs(tmp_path, seeds=(0,), processes=2)
    for config in made:
        config.mesh, config.cluster.platform = MeshConfig(data=4), "tpu"
    with pytest.raises(UserError, match="one process holds all chips of a host"):
        train(made)


class LosesANode:
    """The first time; a run's process 0 then says that another one is gone."""

    def __init__(self, *_) -> None:
        self.starts = 0

    def submit(self, order: WorkerSpec) -> int:
        self.starts += 1
        state = State.lost if self.starts == 1 else State.finished
        write_status(
            RunDir(order.runs[0]), Status(state, attempt=self.starts, message="process 1 of 2 ended")
        )
        return self.starts

    def poll(self, handle: int) -> Exit:
        return Exit(None, "process 1 of 2: its node was lost", preempted=True) if handle == 1 else Exit(0, "")

    def check(self, *_) -> None: ...

    def close(self) -> None: ...


def test_processes_that_a_lost_node_ended_have_used_up_no_attempt(tmp_path):
    made = configs(tmp_path, variants=("mha",), seeds=(0,), processes=2, attempts=1)
    made[0].mesh = MeshConfig(data=2)
    outcomes = launch(made, dataclasses.replace(tools(), engine=LosesANode), Console(quiet=True))
    assert [outcome.state for outcome in outcomes] == ["finished"]
