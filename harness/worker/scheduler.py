"""Scheduler of the runs in one process: blocks start as devices come free, and failed runs are retried. It
knows runs by directory and devices by number, so it imports no JAX. The function that trains is passed in."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Event

from harness.config.worker_options import WorkerOptions
from harness.core.device_pool import DevicePool
from harness.core.progress.report import BEAT_SECONDS
from harness.records.paths import RunDir
from harness.records.run.failure_count import FailureCount
from harness.records.run.status import ProcessInfo, State, read_status, write_status

POLL_SECONDS = 0.1
"""Seconds between two checks for a stop request."""
RETRYABLE = (State.failed, State.oom)
"""End states after which another attempt may succeed."""


@dataclass(frozen=True)
class ScheduledRun:
    """A run and its number of devices. Runs of one block are adjacent, in the order of their lanes."""

    run: RunDir
    block: str
    num_devices: int


class StopSignal(Event):
    """Request to one run to save and stop; also set while `stop_all` is set."""

    def __init__(self, stop_all: Event) -> None:
        super().__init__()
        self._stop_all = stop_all

    def is_set(self) -> bool:
        """Return whether this run, or every run, is asked to stop."""
        return super().is_set() or self._stop_all.is_set()


@dataclass(frozen=True)
class DeviceAllocation:
    """Devices of an attempt from number `first_device` on, since `started_at` (UTC seconds)."""

    first_device: int
    started_at: float
    stop: Event


TrainRun = Callable[[ScheduledRun, DeviceAllocation], State]
"""Function that makes one attempt. It returns the state that it wrote, or raises."""
WriteStatus = Callable[[RunDir, State, str], None]
"""Function that writes (run, state, message) while no attempt does."""


class RunScheduler:
    """Scheduler of blocks of runs over the devices of one process.

    The runs of a block start together on one range of devices, and each frees its part when it ends. The next
    block is the first waiting one that fits, as in the plan (launcher.placement.list_scheduling). Without
    `side_by_side` each run is placed by itself. A signal handler may set `stop` at any time; this thread
    never blocks on it.
    """

    def __init__(
        self,
        runs: Sequence[ScheduledRun],
        devices: int,
        train: TrainRun,
        options: WorkerOptions,
        stop: Event,
        write: WriteStatus | None = None,
    ) -> None:
        self._write = write or write_idle_status
        self._runs, self._train, self._options, self._stop = runs, train, options, stop
        self._devices, self._pool = devices, DevicePool(devices)
        self._states = dict.fromkeys(runs, State.pending)
        unit = (lambda run: run.block) if options.side_by_side else (lambda run: run.run)
        self._waiting_blocks = [(*block,) for _, block in groupby(runs, key=unit)]
        self._allocations: dict[ScheduledRun, DeviceAllocation] = {}
        self._ended_runs: queue.SimpleQueue[ScheduledRun] = queue.SimpleQueue()

    def run_all(self, started_at: float) -> list[State]:
        """Train until every run has ended or stopped, and return their states in order. `started_at`: UTC
        seconds when the process took the first runs."""
        for run in self._runs:
            self._write(run.run, State.pending, "")
        self._refuse_oversized_blocks()
        self._start_fitting_blocks(started_at)
        while self._allocations:
            self._handle_end(self._wait_for_end())
            self._start_fitting_blocks(time.time())
        self._stop_runs(lambda _: True)
        return [self._states[run] for run in self._runs]

    def _wait_for_end(self) -> ScheduledRun:
        """Wait in short pieces, as this thread handles signals: a signal may go to any thread, and would not
        interrupt one long wait."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ended_runs.get(timeout=POLL_SECONDS)

    def _refuse_oversized_blocks(self) -> None:
        for block in [block for block in self._waiting_blocks if _total_devices(block) > self._devices]:
            self._waiting_blocks.remove(block)
            for run in block:
                self._states[run] = State.refused
                counts = f"needs {_total_devices(block)} devices side by side, but there are {self._devices}"
                message = f"{run.block} {counts}. Use a smaller mesh, or raise engine.devices."
                self._write(run.run, State.refused, message)

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
        if self._states[run] in RETRYABLE and self._options.on_failure != "continue":
            block_only = self._options.on_failure == "stop_block"
            self._stop_runs(lambda candidate: candidate.block == run.block or not block_only)

    def _stop_runs(self, condition: Callable[[ScheduledRun], bool]) -> None:
        """Stop the runs that meet `condition`: running ones save first, waiting ones never start."""
        for run, allocation in self._allocations.items():
            if condition(run):
                allocation.stop.set()
        for block in [block for block in self._waiting_blocks if any(map(condition, block))]:
            self._waiting_blocks.remove(block)
            for run in block:
                self._states[run] = State.preempted
                self._write(run.run, State.preempted, "stopped on request before it started")

    # Methods below run in the thread of a run.

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
            if failures >= self._options.attempts:
                return state
            self._write(run.run, State.pending, f"{status.message or state.value}; it is started again")
            if _stopped_within(self._options.backoff(failures), allocation.stop):
                self._write(run.run, State.preempted, status.message)
                return State.preempted
            allocation = dataclasses.replace(allocation, started_at=time.time())

    def _train_once(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        """Make one attempt. Any exception, even SystemExit of a user's module, ends this run alone."""
        try:
            return self._train(run, allocation)
        except BaseException as error:
            traceback.print_exc()
            self._write(run.run, State.failed, f"{type(error).__name__}: {error}")
            return State.failed


def _total_devices(block: Sequence[ScheduledRun]) -> int:
    return sum(run.num_devices for run in block)


def _stopped_within(seconds: float, stop: Event) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.is_set():
        time.sleep(min(POLL_SECONDS, seconds))
    return stop.is_set()


class IdleHeartbeat:
    """Heartbeat of a run whose data are opened, before it has a RunWriter."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._last_write = run, -math.inf

    def beat(self, activity: str) -> None:
        """Write that the run does something, at most twice a second. A full disk stops no run here."""
        if time.monotonic() - self._last_write > BEAT_SECONDS / 2:
            status = read_status(self._run)
            status = dataclasses.replace(status, activity=activity, progress=status.progress + 1)
            with contextlib.suppress(OSError):
                write_status(self._run, status)
            self._last_write = time.monotonic()


def write_idle_status(run: RunDir, state: State, message: str) -> None:
    """Write the status between attempts, when no RunWriter is active; print it if the disk is full."""
    changes = {
        "state": state,
        "phase": "open",
        "activity": "",
        "message": message,
        "writer": ProcessInfo.current(),
    }
    status = dataclasses.replace(read_status(run), **changes)
    try:
        write_status(run, status)
    except OSError as error:
        print(f"{run.path}: {state.value} {message} ({error})", file=sys.stderr, flush=True)
