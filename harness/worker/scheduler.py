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

from harness.config.worker_options import WorkerOptions
from harness.records.paths import RunDir
from harness.records.run.failure_count import FailureCount
from harness.records.run.status import ProcessInfo, State, read_status, write_status
from harness.worker.device_pool import DevicePool

POLL_SECONDS = 0.1
RETRYABLE = (State.failed, State.oom)
"""Ends after which another attempt may do better."""


@dataclass(frozen=True)
class ScheduledRun:
    """A run and the devices that it needs. Runs of one block stand together, in the order of their lanes."""

    run: RunDir
    block: str
    num_devices: int


class StopSignal(threading.Event):
    """Asks one lane to save and leave; set also while `everyone` is."""

    def __init__(self, stop_all: threading.Event) -> None:
        super().__init__()
        self._stop_all = stop_all

    def is_set(self) -> bool:
        return super().is_set() or self._stop_all.is_set()


@dataclass(frozen=True)
class DeviceAllocation:
    """What an attempt is given: devices from `first` on since `begun` (UTC seconds), until told to leave."""

    first_device: int
    started_at: float
    stop: threading.Event


TrainRun = Callable[[ScheduledRun, DeviceAllocation], State]
"""One attempt; returns the state that it wrote, or raises."""
WriteStatus = Callable[[RunDir, State, str], None]


class RunScheduler:
    """The runs of a block start together on one range of devices, each gives its part back as it ends, and
    of the blocks that wait the first one that fits is next, as the plan has it
    (launcher.placement.list_scheduling).

    A signal handler may set `leave` at any time; this thread never waits on it.
    """

    def __init__(
        self,
        runs: Sequence[ScheduledRun],
        devices: int,
        train: TrainRun,
        terms: WorkerOptions,
        stop: threading.Event,
        write: WriteStatus | None = None,
    ) -> None:
        self._write = write or write_idle_status
        self._runs, self._train, self._terms, self._stop = runs, train, terms, stop
        self._devices, self._pool = devices, DevicePool(devices)
        self._states = dict.fromkeys(runs, State.pending)
        self._waiting_blocks = [(*block,) for _, block in groupby(runs, key=lambda run: run.block)]
        self._allocations: dict[ScheduledRun, DeviceAllocation] = {}
        self._ended_runs: queue.SimpleQueue[ScheduledRun] = queue.SimpleQueue()

    def run_all(self, started_at: float) -> list[State]:
        """Train until every run ended or left; `begun`: when the process took the first ones on."""
        for run in self._runs:
            self._write(run.run, State.pending, "")
        self._refuse_oversized_blocks()
        self._start_fitting_blocks(started_at)
        while self._allocations:
            self._handle_end(self._wait_for_end())
            self._start_fitting_blocks(time.time())
        self._stop_runs(lambda _: True)
        return [self._states[turn] for turn in self._runs]

    def _wait_for_end(self) -> ScheduledRun:
        """Waits in short pieces: the system may give a signal to any thread, and this one, which acts on it,
        sleeps on in one long wait."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ended_runs.get(timeout=POLL_SECONDS)

    def _refuse_oversized_blocks(self) -> None:
        for block in [block for block in self._waiting_blocks if _total_devices(block) > self._devices]:
            self._waiting_blocks.remove(block)
            for run in block:
                self._states[run] = State.refused
                reason = f"{run.block} needs {_total_devices(block)} devices side by side, there are {self._devices}"
                self._write(
                    run.run, State.refused, f"{reason}; give it a smaller mesh, or engine.devices more"
                )

    def _start_fitting_blocks(self, started_at: float) -> None:
        for block in [*self._waiting_blocks]:
            if self._stop.is_set():
                return
            first = self._pool.allocate(_total_devices(block))
            if first is not None:
                self._waiting_blocks.remove(block)
                self._start_block(block, first, started_at)

    def _start_block(self, block: Sequence[ScheduledRun], first: int, started_at: float) -> None:
        for run in block:
            self._allocations[run] = DeviceAllocation(first, started_at, StopSignal(self._stop))
            first += run.num_devices
        for run in block:
            threading.Thread(target=self._run_in_thread, args=(run,), name=str(run.run.path)).start()

    def _handle_end(self, run: ScheduledRun) -> None:
        allocation = self._allocations.pop(run)
        self._pool.free(allocation.first_device, run.num_devices)
        if self._states[run] in RETRYABLE and self._terms.on_failure != "continue":
            block_only = self._terms.on_failure == "stop_block"
            self._stop_runs(lambda candidate: candidate.block == run.block or not block_only)

    def _stop_runs(self, condition: Callable[[ScheduledRun], bool]) -> None:
        """Those at work save and leave, those that wait never start."""
        for run, allocation in self._allocations.items():
            if condition(run):
                allocation.stop.set()
        for block in [block for block in self._waiting_blocks if any(map(condition, block))]:
            self._waiting_blocks.remove(block)
            for run in block:
                self._states[run] = State.preempted
                self._write(run.run, State.preempted, "asked to leave before its turn")

    # In the thread of a run

    def _run_in_thread(self, run: ScheduledRun) -> None:
        try:
            self._states[run] = self._train_with_retries(run, self._allocations[run])
        finally:
            self._ended_runs.put(run)

    def _train_with_retries(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        attempts = FailureCount()
        while True:
            self._write(run.run, State.running, "")
            state = self._train_once(run, allocation)
            if state not in RETRYABLE or allocation.stop.is_set():
                return state
            status = read_status(run.run)
            failures = attempts.record_failure(status.step)
            if failures >= self._terms.attempts:
                return state
            self._write(run.run, State.pending, f"{status.message or state.value}; it is started again")
            if _stopped_within(self._terms.backoff(failures), allocation.stop):
                self._write(run.run, State.preempted, status.message)
                return State.preempted
            allocation = dataclasses.replace(allocation, started_at=time.time())

    def _train_once(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        """Whatever is raised, SystemExit of a user's module too, ends this lane alone."""
        try:
            return self._train(run, allocation)
        except BaseException as error:
            traceback.print_exc()
            self._write(run.run, State.failed, f"{type(error).__name__}: {error}")
            return State.failed


def _total_devices(block: Sequence[ScheduledRun]) -> int:
    return sum(run.num_devices for run in block)


def _stopped_within(seconds: float, stop: threading.Event) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.is_set():
        time.sleep(min(POLL_SECONDS, seconds))
    return stop.is_set()


def write_idle_status(run: RunDir, state: State, message: str) -> None:
    """Between attempts, when no journal has the status. On a full disk it goes to the worker's own output."""
    status = dataclasses.replace(
        read_status(run), state=state, phase="open", message=message, writer=ProcessInfo.here()
    )
    try:
        write_status(run, status)
    except OSError as error:
        print(f"{run.path}: {state.value} {message} ({error})", file=sys.stderr, flush=True)
