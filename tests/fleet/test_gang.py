"""Several workers of one order, seen as one."""

from __future__ import annotations

import pytest

from harness.config.errors import UserError
from harness.config.schema import MeshConfig
from harness.fleet.engines import HELD, Exit
from harness.fleet.engines.gang import GRACE, Gang
from tests.fleet.support import configs, train

KILLED = Exit(-9, "the worker was ended by SIGKILL")


class Members:
    """Two workers, by what they said so far."""

    def __init__(self) -> None:
        self.exits: dict[str, Exit] = {}
        self.ended: list[str] = []
        self.now = 100.0
        self.gang = Gang(["first", "second"], clock=lambda: self.now)

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
    members.now += GRACE
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
    members.exits["first"] = Exit(None, "its node was lost", taken_away=True)
    assert members.poll() == Exit(None, "process 0 of 2: its node was lost", taken_away=True)


def test_a_run_in_other_hands_is_not_lost():
    members = Members()
    members.exits["first"] = Exit(HELD, "held")
    members.exits["second"] = Exit(3, "the worker ended with status 3")
    assert members.poll() == Exit(HELD, "held")


@pytest.mark.parametrize(("count", "isolation"), [(3, "block"), (0, "block"), (2, "all")])
def test_processes_that_cannot_share_a_run_are_refused_before_anything_is_written(tmp_path, count, isolation):
    made = configs(tmp_path, seeds=(0,), processes=count, isolation=isolation)
    for config in made:
        config.mesh = MeshConfig(data=4)
    with pytest.raises(UserError, match=f"engine.processes={count}"):
        train(made)
    assert not [*tmp_path.iterdir()]


def test_other_engines_start_one_process_a_run(tmp_path):
    made = configs(tmp_path, seeds=(0,), processes=2)
    for config in made:
        config.mesh, config.engine.name = MeshConfig(data=4), "slurm"
    with pytest.raises(UserError, match=r"engine\.processes=2 and engine=slurm"):
        train(made)
