"""Whose turn it is: the runs of one process, block by block as devices come free, each restarted in place.

Knows runs by their directories and devices by number, so it imports no JAX; what an attempt does is
handed in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.config.worker_options import Terms
from harness.records.paths import RunDir
from harness.records.run.failure_count import Attempts
from harness.records.run.status import State, Writer, read_status, write_status
from harness.worker.device_pool import Pool

TICK = 0.1
AGAIN = (State.failed, State.oom)
"""Ends after which another attempt may do better."""


@dataclass(frozen=True)
class Turn:
    """A run and the devices that it needs. Runs of one block stand together, in the order of their lanes."""

    run: RunDir
    block: str
    width: int


class Leave(threading.Event):
    """Asks one lane to save and leave; set also while `everyone` is."""

    def __init__(self, everyone: threading.Event) -> None:
        super().__init__()
        self._everyone = everyone

    def is_set(self) -> bool:
        return super().is_set() or self._everyone.is_set()


@dataclass(frozen=True)
class Lease:
    """What an attempt is given: devices from `first` on since `begun` (UTC seconds), until told to leave."""

    first: int
    begun: float
    leave: threading.Event


Train = Callable[[Turn, Lease], State]
"""One attempt; returns the state that it wrote, or raises."""
Write = Callable[[RunDir, State, str], None]


class Turns:
    """The runs of a block start together on one range of devices, each gives its part back as it ends, and
    of the blocks that wait the first one that fits is next, as the plan has it
    (launcher.placement.list_scheduling).

    A signal handler may set `leave` at any time; this thread never waits on it.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        devices: int,
        train: Train,
        terms: Terms,
        leave: threading.Event,
        write: Write | None = None,
    ) -> None:
        self._write = write or write_turn
        self._turns, self._train, self._terms, self._leave = turns, train, terms, leave
        self._devices, self._pool = devices, Pool(devices)
        self._states = dict.fromkeys(turns, State.pending)
        self._waiting = [(*block,) for _, block in groupby(turns, key=lambda turn: turn.block)]
        self._at_work: dict[Turn, Lease] = {}
        self._ends: queue.SimpleQueue[Turn] = queue.SimpleQueue()

    def take(self, begun: float) -> list[State]:
        """Train until every run ended or left; `begun`: when the process took the first ones on."""
        for turn in self._turns:
            self._write(turn.run, State.pending, "")
        self._refuse_the_too_wide()
        self._start_what_fits(begun)
        while self._at_work:
            self._ended(self._next_end())
            self._start_what_fits(time.time())
        self._drop(lambda _: True)
        return [self._states[turn] for turn in self._turns]

    def _next_end(self) -> Turn:
        """Waits in short pieces: the system may give a signal to any thread, and this one, which acts on it,
        sleeps on in one long wait."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ends.get(timeout=TICK)

    def _refuse_the_too_wide(self) -> None:
        for block in [block for block in self._waiting if _width(block) > self._devices]:
            self._waiting.remove(block)
            for turn in block:
                self._states[turn] = State.refused
                said = f"{turn.block} needs {_width(block)} devices side by side, there are {self._devices}"
                self._write(
                    turn.run, State.refused, f"{said}; give it a smaller mesh, or engine.devices more"
                )

    def _start_what_fits(self, begun: float) -> None:
        for block in [*self._waiting]:
            if self._leave.is_set():
                return
            first = self._pool.take(_width(block))
            if first is not None:
                self._waiting.remove(block)
                self._start(block, first, begun)

    def _start(self, block: Sequence[Turn], first: int, begun: float) -> None:
        for turn in block:
            self._at_work[turn] = Lease(first, begun, Leave(self._leave))
            first += turn.width
        for turn in block:
            threading.Thread(target=self._work, args=(turn,), name=str(turn.run.path)).start()

    def _ended(self, turn: Turn) -> None:
        lease = self._at_work.pop(turn)
        self._pool.give(lease.first, turn.width)
        if self._states[turn] in AGAIN and self._terms.on_failure != "continue":
            alone = self._terms.on_failure == "stop_block"
            self._drop(lambda other: other.block == turn.block or not alone)

    def _drop(self, concerned: Callable[[Turn], bool]) -> None:
        """Those at work save and leave, those that wait never start."""
        for turn, lease in self._at_work.items():
            if concerned(turn):
                lease.leave.set()
        for block in [block for block in self._waiting if any(map(concerned, block))]:
            self._waiting.remove(block)
            for turn in block:
                self._states[turn] = State.preempted
                self._write(turn.run, State.preempted, "asked to leave before its turn")

    # In the thread of a run

    def _work(self, turn: Turn) -> None:
        try:
            self._states[turn] = self._until_it_ends(turn, self._at_work[turn])
        finally:
            self._ends.put(turn)

    def _until_it_ends(self, turn: Turn, lease: Lease) -> State:
        attempts = Attempts()
        while True:
            self._write(turn.run, State.running, "")
            state = self._attempt(turn, lease)
            if state not in AGAIN or lease.leave.is_set():
                return state
            status = read_status(turn.run)
            failures = attempts.failed_at(status.step)
            if failures >= self._terms.attempts:
                return state
            self._write(turn.run, State.pending, f"{status.message or state.value}; it is started again")
            if _left_within(self._terms.backoff(failures), lease.leave):
                self._write(turn.run, State.preempted, status.message)
                return State.preempted
            lease = dataclasses.replace(lease, begun=time.time())

    def _attempt(self, turn: Turn, lease: Lease) -> State:
        """Whatever is raised, SystemExit of a user's module too, ends this lane alone."""
        try:
            return self._train(turn, lease)
        except BaseException as error:
            traceback.print_exc()
            self._write(turn.run, State.failed, f"{type(error).__name__}: {error}")
            return State.failed


def _width(block: Sequence[Turn]) -> int:
    return sum(turn.width for turn in block)


def _left_within(seconds: float, leave: threading.Event) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not leave.is_set():
        time.sleep(min(TICK, seconds))
    return leave.is_set()


def write_turn(run: RunDir, state: State, message: str) -> None:
    """Between attempts, when no journal has the status. On a full disk it goes to the worker's own output."""
    status = dataclasses.replace(
        read_status(run), state=state, phase="open", message=message, writer=Writer.here()
    )
    try:
        write_status(run, status)
    except OSError as error:
        print(f"{run.path}: {state.value} {message} ({error})", file=sys.stderr, flush=True)
