"""Trained look by look, a run is bitwise what it is in one go."""

import threading

import pytest

from harness.records.run.integrity import find_damage
from harness.records.run.status import State, read_status
from harness.records.run.training_target import END, read_target, write_target
from harness.training.run import train_run
from tests.training.runs import assignment, curve, lane, prepare

LOOKS = "schedule.branches=[0.4,0.6,0.8]"
SHARES = (0.4, 0.6, 0.8)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run trained in one go, and one that waited at each look."""
    one = prepare(tmp_path_factory.mktemp("whole"), LOOKS)
    programs = lane(one)
    assert train_run(assignment(one), programs, threading.Event()) is State.finished
    other = prepare(tmp_path_factory.mktemp("looked"), LOOKS)
    waited = []
    for share in (*SHARES, END):
        write_target(other, share)
        train_run(assignment(other), programs, threading.Event())
        waited.append((read_status(other).state, read_status(other).step, len(other.branches())))
    return one, other, waited


def test_a_run_waits_at_each_look_and_goes_no_further(both):
    _, _, waited = both
    # 30 steps; 15 % cooldown: branches of 12, 18 and 24 steps leave at 10, 15 and 20.
    assert waited == [
        (State.waiting, 10, 1),
        (State.waiting, 15, 2),
        (State.waiting, 20, 3),
        (State.finished, 30, 3),
    ]


def test_run_and_branches_are_bitwise_those_of_one_go(both):
    one, other, _ = both
    for a, b in [(one, other), *((one.branch(share), other.branch(share)) for share in SHARES)]:
        assert curve(a).equals(curve(b))
        assert curve(a, "evals").equals(curve(b, "evals"))
        assert not find_damage(b)


def test_asked_twice_for_the_same_look_it_trains_nothing(tmp_path, both):
    one, _, _ = both
    run = prepare(tmp_path, LOOKS)
    write_target(run, SHARES[0])
    programs = lane(run)
    states = [train_run(assignment(run), programs, threading.Event()) for _ in range(2)]
    assert states == [State.waiting, State.waiting]
    assert curve(run)["step"].to_list() == list(range(1, 11))
    assert curve(run).equals(curve(one).head(10))


def test_without_a_goal_it_is_the_end(tmp_path):
    run = prepare(tmp_path)
    assert read_target(run) == END
    write_target(run, 0.5)
    write_target(run, END)
    assert read_target(run) == END
