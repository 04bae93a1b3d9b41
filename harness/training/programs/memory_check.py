"""Whether a lane fits before its first step: the sizes of its compiled programs against what there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UserError
from harness.core.host_memory import free_memory, memory_limit, resident_memory
from harness.core.number_format import format_bytes
from harness.training.programs.run_programs import RunPrograms

WAIT_SECONDS = 300.0
"""Seconds for which a lane waits for memory that others than the lanes of its process hold."""
POLL_SECONDS = 1.0
"""Seconds between two looks at what is free."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on each device of a lane."""

    state: int
    """Parameters and what the optimizer keeps of them."""
    copy: int
    """Of the state, while a checkpoint is written from it in the background."""
    scratch: int
    """What a step takes beside the state (batch, gradients, activations), or evaluation, if that is more."""
    devices: int
    """Those of this process."""

    @property
    def per_device(self) -> int:
        return self.state + self.copy + self.scratch

    @property
    def total(self) -> int:
        return self.per_device * self.devices

    def message(self, available: float, source: str, suggestion: str = "") -> str:
        """Why the lane does not fit into `whole` bytes a device, and what would help."""
        state, copy, step = map(format_bytes, (self.state, self.copy, self.scratch))
        return (
            f"needs {format_bytes(self.per_device)} a device of {format_bytes(available)} ({source}): "
            f"state {state}, its copy for saving {copy}, step {step}; way out: {suggestion}"
            "compute.remat=full, a smaller scale.batch, or a smaller model"
        )


def memory_need(programs: RunPrograms) -> MemoryNeed:
    """From the compiler's own count, which is a device's. Compiles or loads what is not there yet."""
    _, step, copy, evaluate = (_sizes(program) for program in programs.prepare())
    state = copy.argument_size_in_bytes
    return MemoryNeed(
        state=state,
        copy=copy.output_size_in_bytes,
        scratch=max(_peak_bytes(step) - state, evaluate.output_size_in_bytes + evaluate.temp_size_in_bytes),
        devices=len(programs.local_devices),
    )


def _sizes(program: Any) -> Any:
    return program.memory_analysis()


def _peak_bytes(sizes: Any) -> int:
    """Arguments and results, those that share memory counted once, and temporaries."""
    buffers = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return buffers + sizes.temp_size_in_bytes


class MemoryBudget:
    """The memory that the lanes of one process share.

    Real devices have their own, and a lane fits or does not. Simulated devices share the machine's: what is
    free is measured whenever no lane of this process holds any, and lent out from there. What is more than
    the machine has is refused; a lane waits while others of its process hold what it needs, and for a
    while if it is anybody else.
    """

    def __init__(
        self,
        free: Callable[[], float] | None = None,
        limit: Callable[[], float] = memory_limit,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._measure_free, self._limit, self._wait_seconds = free or _make_free_memory(), limit, wait_seconds
        self._free, self._reserved = 0.0, 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, programs: RunPrograms, waiting: Callable[[], None]) -> Iterator[None]:
        """While a lane trains. `waiting` is called over and over until there is room; what it raises ends
        the wait. Raises UserError where the lane does not fit."""
        need = memory_need(programs)
        limits = [
            stats["bytes_limit"] for device in programs.local_devices if (stats := device.memory_stats())
        ]
        if limits:
            if need.per_device > min(limits):
                ways = f"mesh.fsdp={2 * programs.config.mesh.fsdp}, "
                raise UserError(need.message(min(limits), programs.devices[0].device_kind, ways))
            yield
            return
        self._wait_and_reserve(need, waiting)
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= need.total
                self._changed.notify_all()

    def _wait_and_reserve(self, need: MemoryNeed, waiting: Callable[[], None]) -> None:
        start: float | None = None
        with self._changed:
            while not self._fits(need.total):
                if not self._reserved:
                    start = start or time.monotonic()
                    self._refuse_if_hopeless(need, time.monotonic() - start)
                waiting()
                self._changed.wait(POLL_SECONDS)
            self._reserved += need.total

    def _fits(self, size_bytes: int) -> bool:
        if not self._reserved:
            self._free = self._measure_free()
        return self._reserved + size_bytes <= self._free

    def _refuse_if_hopeless(self, need: MemoryNeed, seconds: float) -> None:
        limit = self._limit()
        if need.total > limit or seconds > self._wait_seconds:
            plural = "s" if need.devices > 1 else ""
            free = f"{format_bytes(self._free)} free of {format_bytes(limit)}"
            room = f"{need.devices} simulated device{plural} on {free}"
            raise UserError(need.message(self._free / need.devices, room))


def _make_free_memory() -> Callable[[], float]:
    """What is free, and what lanes left to this process: it keeps freed memory (core.cpu_flags)."""
    before = resident_memory()
    return lambda: free_memory() + max(0.0, resident_memory() - before)
