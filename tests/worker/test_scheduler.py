"""Whose turn it is, with attempts that only pretend: against the plan's own packing, and fault by fault."""

import random
import signal
import threading
import time

import pytest

from harness.config.worker_options import WorkerOptions, from_env, to_env
from harness.launcher.placement.list_scheduling import BlockJob, pack
from harness.records.paths import RunDir
from harness.records.run.status import State, Status, read_status, write_status
from harness.worker.scheduler import RunScheduler, ScheduledRun

PATIENCE = 60.0
"""Seconds that a busy machine may take for anything."""
QUICK = WorkerOptions(attempts=3, backoff_seconds=0.001)


def turns_of(folder, blocks):
    """`blocks`: {name: widths of its lanes}."""
    made = []
    for name, widths in blocks.items():
        for lane, width in enumerate(widths):
            run = RunDir(folder / name / str(lane))
            run.path.mkdir(parents=True)
            made.append(ScheduledRun(run, name, width))
    return made


class Stage:
    """Attempts that end when the test says so, in any order."""

    def __init__(self, turns, devices, terms=QUICK, states=None):
        self.begun, self.allocations, self.gates = [], {}, {turn: threading.Event() for turn in turns}
        self.states, self.leave = states or {}, threading.Event()
        self._turns = RunScheduler(turns, devices, self.attempt, terms, self.leave)
        self.result = []
        self._thread = threading.Thread(target=lambda: self.result.extend(self._turns.run_all(0.0)))

    def attempt(self, turn, allocation):
        self.allocations[turn] = allocation
        self.begun.append(turn)
        while not self.gates[turn].wait(0.005):
            if allocation.stop.is_set():
                return say(turn, State.preempted)
        wanted = self.states.get(turn, State.finished)
        state = wanted.pop(0) if isinstance(wanted, list) else wanted
        if isinstance(state, BaseException):
            raise state
        return say(turn, state)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        for gate in self.gates.values():
            gate.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def end(self, turn):
        """Two ends in a row that start nothing between them could else be taken in the other order."""
        self.gates[turn].set()
        deadline = time.monotonic() + PATIENCE
        while turn in self._turns._allocations:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def wait_for(self, *turns):
        deadline = time.monotonic() + PATIENCE
        while {*self.begun} != {*turns}:
            assert time.monotonic() < deadline, [turn.run.path for turn in self.begun]
            time.sleep(0.002)
        time.sleep(0.01)
        assert {*self.begun} == {*turns}


def say(turn, state, step=0, message=""):
    write_status(turn.run, Status(state, step=step, message=message))
    return state


def test_unequal_lanes_never_wait_for_each_other(tmp_path):
    a0, a1, b, c = turns_of(tmp_path, {"a": [2, 1], "b": [2], "c": [1]})
    with Stage([a0, a1, b, c], 4) as stage:
        stage.wait_for(a0, a1, c)  # c is the first in line that fits
        assert [stage.allocations[turn].first_device for turn in (a0, a1, c)] == [0, 2, 3]
        assert read_status(b.run).state is State.pending
        stage.gates[a0].set()
        stage.wait_for(a0, a1, c, b)
        assert stage.allocations[b].first_device == 0
        assert stage.allocations[a0].started_at == 0.0 < stage.allocations[b].started_at
    assert stage.result == [State.finished] * 4


@pytest.mark.parametrize("seed", range(5))
def test_blocks_begin_in_the_order_of_the_plan(tmp_path, seed):
    """Ends in the order that the plan predicts give the plan's own starts."""
    draw = random.Random(seed)
    jobs = [
        BlockJob(draw.randint(1, 3), tuple(draw.uniform(1, 9) for _ in range(draw.randint(1, 3))))
        for _ in range(7)
    ]
    turns = turns_of(tmp_path, {str(i): [job.width] * len(job.seconds) for i, job in enumerate(jobs)})
    start = {turn: pack(9, jobs)[int(turn.block)].start for turn in turns}
    seconds = dict(zip(turns, (each for job in jobs for each in job.seconds), strict=True))
    assert len({*start.values()}) > 2, "nobody waits: nothing is tested"
    with Stage(turns, 9) as stage:
        for turn in sorted(turns, key=lambda turn: start[turn] + seconds[turn]):
            stage.wait_for(*[other for other in turns if start[other] < start[turn] + seconds[turn]])
            stage.end(turn)
    assert stage.result == [State.finished] * len(turns)


def test_runs_that_take_turns_start_one_by_one(tmp_path):
    """In their order, each on the first devices that come free; a failure still ends its whole block."""
    options = WorkerOptions(attempts=1, on_failure="stop_block", side_by_side=False)
    a0, a1, a2, b0 = turns = turns_of(tmp_path, {"a": [1, 1, 1], "b": [1]})
    with Stage(turns, 2, options, {a1: State.failed}) as stage:
        stage.wait_for(a0, a1)
        stage.gates[a0].set()
        stage.wait_for(a0, a1, a2)
        assert stage.allocations[a2].first_device == 0
        stage.gates[a1].set()
        stage.wait_for(a0, a1, a2, b0)
    assert stage.result == [State.finished, State.failed, State.preempted, State.finished]


def test_a_lane_restarts_in_place_until_it_gets_no_further(tmp_path):
    turns = turns_of(tmp_path, {"a": [1, 1]})
    bad, good = turns
    steps, seen = iter([5, 5, 9, 9, 9]), []

    def attempt(turn, allocation):
        if turn is good:
            return say(turn, State.finished)
        seen.append(allocation.first_device)
        return say(turn, State.failed, next(steps), "a fault")

    assert RunScheduler(turns, 2, attempt, QUICK, threading.Event()).run_all(0.0) == [
        State.failed,
        State.finished,
    ]
    assert seen == [0] * 5, "two failures at 5; then it got further, and had three more"
    assert read_status(bad.run).message == "a fault"


@pytest.mark.parametrize("state", [State.diverged, State.refused, State.preempted, State.waiting])
def test_what_another_attempt_would_not_mend_is_not_attempted_again(tmp_path, state):
    (turn,) = turns_of(tmp_path, {"a": [1]})
    with Stage([turn], 1, states={turn: state}) as stage:
        pass
    assert (stage.result, len(stage.begun)) == ([state], 1)


def test_whatever_is_raised_ends_its_lane_alone(tmp_path, capsys):
    bad, good = turns_of(tmp_path, {"a": [1, 1]})
    with Stage([bad, good], 2, states={bad: [SystemExit("enough"), State.oom, State.finished]}) as stage:
        pass
    assert stage.result == [State.finished] * 2
    assert stage.begun.count(bad) == 3
    assert "SystemExit: enough" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("continue", [State.finished] * 3),
        ("stop_block", [State.preempted, State.finished, State.finished]),
        ("stop_all", [State.preempted] * 3),
    ],
)
def test_what_a_run_that_failed_for_good_ends(tmp_path, policy, left):
    bad, sibling, other, late = turns_of(tmp_path, {"a": [1, 1], "b": [1], "c": [3]})
    terms = WorkerOptions(attempts=1, on_failure=policy)
    with Stage([bad, sibling, other, late], 3, terms, {bad: State.failed}) as stage:
        stage.wait_for(bad, sibling, other)
        stage.gates[bad].set()
        # Each that is to leave has left before the gates open for the others.
        others = zip([sibling, other, late], left, strict=True)
        leaving = [turn for turn, state in others if state is State.preempted]
        deadline = time.monotonic() + PATIENCE
        while any(read_status(turn.run).state is not State.preempted for turn in leaving):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    assert stage.result == [State.failed, *left]
    assert (late in stage.begun) == (policy != "stop_all")


def test_asked_to_leave_everyone_does_and_nobody_begins(tmp_path):
    one, other, late = turns_of(tmp_path, {"a": [1, 1], "b": [1]})
    with Stage([one, other, late], 2) as stage:
        stage.wait_for(one, other)
        stage.leave.set()
        stage._thread.join(PATIENCE)
        assert stage.result == [State.preempted] * 3
    assert read_status(late.run).state is State.preempted
    assert late not in stage.begun


def test_asked_to_leave_while_it_waits_to_try_again(tmp_path):
    (turn,) = turns_of(tmp_path, {"a": [1]})
    with Stage([turn], 1, WorkerOptions(3, backoff_seconds=30), {turn: State.failed}) as stage:
        stage.gates[turn].set()
        deadline = time.monotonic() + PATIENCE
        while "started again" not in read_status(turn.run).message:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        stage.leave.set()
        stage._thread.join(PATIENCE)
        assert stage.result == [State.preempted]
    assert len(stage.begun) == 1


def test_a_block_that_no_pool_holds_is_refused_and_the_others_train(tmp_path):
    wide, narrow = turns_of(tmp_path, {"a": [4], "b": [1]})
    with Stage([wide, narrow], 3) as stage:
        pass
    assert stage.result == [State.refused, State.finished]
    assert "needs 4 devices side by side, but there are 3" in read_status(wide.run).message


def test_waiting_doubles_and_never_looks_like_a_stall():
    terms = WorkerOptions(backoff_seconds=1.0, stall_seconds=20.0)
    assert [terms.backoff(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 10]
    assert from_env(to_env(terms)) == terms
    assert from_env({}) == WorkerOptions()


def test_a_signal_that_another_thread_takes_in_is_acted_on(tmp_path):
    leave, [turn] = threading.Event(), turns_of(tmp_path, {"a": [1]})

    def attempt(turn, allocation):
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        return say(turn, State.preempted if leave.wait(5) else State.finished)

    before = signal.signal(signal.SIGUSR2, lambda *_: leave.set())
    try:
        assert RunScheduler([turn], 1, attempt, QUICK, leave).run_all(0.0) == [State.preempted]
    finally:
        signal.signal(signal.SIGUSR2, before)
