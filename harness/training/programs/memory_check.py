"""Memory check before the first step: sizes of the compiled programs against available memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import jax

from harness.core.errors import UserError
from harness.core.host_memory import free_memory, memory_limit, resident_memory
from harness.core.number_format import format_bytes
from harness.records.run.save_copy import save_copy_bytes
from harness.training.programs.run_programs import RunPrograms

WAIT_SECONDS = 300.0
"""Seconds that a run waits for memory held by other processes."""
POLL_SECONDS = 1.0
"""Seconds between two measurements of free memory."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a run needs on each device."""

    state: int
    """Bytes of parameters and optimizer state."""
    copy: int
    """Bytes of the copy of the state, from which a checkpoint is saved in the background."""
    step: int
    """Bytes of a step: batch, gradients, activations."""
    evaluation: int
    """Bytes of an evaluation beside the state. It takes a micro-batch, as the step does, so it is less."""
    devices: int
    """Number of devices of this process."""

    @property
    def scratch(self) -> int:
        """Bytes of the program that needs most."""
        return max(self.step, self.evaluation)

    @property
    def per_device(self) -> int:
        """Bytes on each device."""
        return self.state + self.copy + self.scratch

    @property
    def total(self) -> int:
        """Bytes on all devices of this process."""
        return self.per_device * self.devices

    def within(self, limit: float) -> MemoryNeed:
        """Return the need with a copy of the state only if `limit` bytes per device have room for one."""
        return replace(self, copy=int(save_copy_bytes(self.copy, self.state + self.scratch, limit)))

    def message(self, available: float, source: str) -> str:
        """Return why the run does not fit into `available` bytes per device."""
        state, scratch = map(format_bytes, (self.state, self.scratch))
        program = "step" if self.step >= self.evaluation else "evaluation"
        return (
            f"needs {format_bytes(self.per_device)} a device, but has {format_bytes(available)} ({source}): "
            f"state {state}, {program} {scratch}."
        )


class NoRoom(UserError):
    """Error of a run whose compiled programs need more memory than its devices have."""

    def __init__(self, message: str, available: float, devices: int):
        """`available`: bytes that each of at most so many `devices` has."""
        super().__init__(message)
        self.available, self.devices = available, devices


def memory_need(programs: RunPrograms) -> MemoryNeed:
    """Return the need as counted by the compiler, and of the state by its shards. Compiles or loads all
    programs of the run."""
    analyses: list[Any] = [program.memory_analysis() for program in programs.prepare()]
    _, step, *evaluations = analyses
    state = _state_bytes(programs.abstract_state())
    buffers = step.argument_size_in_bytes + step.output_size_in_bytes - step.alias_size_in_bytes
    training = buffers + step.temp_size_in_bytes - state
    # What is judged, where it is not what is trained, lies beside the state while it is evaluated.
    evaluation = sum(each.output_size_in_bytes + each.temp_size_in_bytes for each in evaluations)
    num_devices = len(programs.local_devices)
    return MemoryNeed(state, state, training, evaluation, num_devices)


def _state_bytes(abstract: Any) -> int:
    """Return the bytes that a state needs on each device; `abstract`: specs of its arrays, with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


class MemoryBudget:
    """Memory shared by the runs of one process.

    A real device has its own memory, and a run fits or is refused. Simulated devices share the host's memory:
    free memory is measured whenever no run of this process holds any, and is reserved from there. A run waits
    while other runs of its process hold the memory, and at most WAIT_SECONDS for other processes. A run that
    needs more than the machine has is refused at once.
    """

    def __init__(
        self,
        free: Callable[[], float] | None = None,
        limit: Callable[[], float] = memory_limit,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        before = resident_memory()  # what ended runs left to this process is free: it keeps freed memory
        self._measure_free = free or (lambda: free_memory() + max(0.0, resident_memory() - before))
        self._limit, self._wait_seconds = limit, wait_seconds
        self._free, self._reserved = 0.0, 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, programs: RunPrograms, waiting: Callable[[], None]) -> Iterator[MemoryNeed]:
        """Reserve memory while a run trains, without a copy of its state where there is no room for one.
        Yields what was reserved. Raises NoRoom if the run cannot fit. `waiting` is called repeatedly until
        there is memory; its exceptions end the wait."""
        need = memory_need(programs)
        device_stats = [device.memory_stats() for device in programs.local_devices]
        limits = [stats["bytes_limit"] for stats in device_stats if stats]
        if limits:
            need = need.within(min(limits))
            if need.per_device > min(limits):
                message = need.message(min(limits), programs.devices[0].device_kind)
                raise NoRoom(message, min(limits), jax.device_count())
            yield need
            return
        need = self._wait_and_reserve(need, waiting)
        try:
            yield need
        finally:
            with self._changed:
                self._reserved -= need.total
                self._changed.notify_all()

    def _wait_and_reserve(self, need: MemoryNeed, waiting: Callable[[], None]) -> MemoryNeed:
        start: float | None = None
        with self._changed:
            while not self._fits(need.total):
                if not self._reserved:
                    start = start or time.monotonic()
                    if self._is_hopeless(need, seconds := time.monotonic() - start):
                        need = need.within(self._free / need.devices)
                        if self._is_hopeless(need, seconds) and not self._fits(need.total):
                            self._refuse(need)
                        continue
                waiting()
                self._changed.wait(POLL_SECONDS)
            self._reserved += need.total
        return need

    def _fits(self, size_bytes: int) -> bool:
        if not self._reserved:
            self._free = self._measure_free()
        return self._reserved + size_bytes <= self._free

    def _is_hopeless(self, need: MemoryNeed, seconds: float) -> bool:
        """Return whether waiting any longer is of no use."""
        return need.total > self._limit() or seconds > self._wait_seconds

    def _refuse(self, need: MemoryNeed) -> NoReturn:
        plural = "s" if need.devices > 1 else ""
        free = f"{format_bytes(self._free)} free of {format_bytes(self._limit())}"
        room = f"{need.devices} simulated device{plural} on {free}"
        available = self._free / need.devices
        raise NoRoom(need.message(available, room), available, need.devices)
