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
from harness.core.number_format import size
from harness.training.programs.run_programs import Lane

PATIENCE = 300.0
"""Seconds for which a lane waits for memory that others than the lanes of its process hold."""
LOOK = 1.0
"""Seconds between two looks at what is free."""


@dataclass(frozen=True)
class Need:
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
    def each(self) -> int:
        return self.state + self.copy + self.scratch

    @property
    def all(self) -> int:
        return self.each * self.devices

    def words(self, whole: float, room: str, first: str = "") -> str:
        """Why the lane does not fit into `whole` bytes a device, and what would help."""
        parts = f"state {size(self.state)}, its copy for saving {size(self.copy)}, step {size(self.scratch)}"
        return (
            f"needs {size(self.each)} a device of {size(whole)} ({room}): {parts}; way out: {first}"
            "compute.remat=full, a smaller scale.batch, or a smaller model"
        )


def need_of(lane: Lane) -> Need:
    """From the compiler's own count, which is a device's. Compiles or loads what is not there yet."""
    _, step, copy, evaluate = (_sizes(program) for program in lane.prepare())
    state = copy.argument_size_in_bytes
    return Need(
        state=state,
        copy=copy.output_size_in_bytes,
        scratch=max(_total(step) - state, evaluate.output_size_in_bytes + evaluate.temp_size_in_bytes),
        devices=len(lane.own_devices),
    )


def _sizes(program: Any) -> Any:
    return program.memory_analysis()


def _total(sizes: Any) -> int:
    """Arguments and results, those that share memory counted once, and temporaries."""
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return held + sizes.temp_size_in_bytes


class Room:
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
        patience: float = PATIENCE,
    ) -> None:
        self._measure, self._limit, self._patience = free or _free_for_this_process(), limit, patience
        self._free, self._held = 0.0, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, lane: Lane, waiting: Callable[[], None]) -> Iterator[None]:
        """While a lane trains. `waiting` is called over and over until there is room; what it raises ends
        the wait. Raises UserError where the lane does not fit."""
        need = need_of(lane)
        limits = [stats["bytes_limit"] for each in lane.own_devices if (stats := each.memory_stats())]
        if limits:
            if need.each > min(limits):
                ways = f"mesh.fsdp={2 * lane.config.mesh.fsdp}, "
                raise UserError(need.words(min(limits), lane.devices[0].device_kind, ways))
            yield
            return
        self._take(need, waiting)
        try:
            yield
        finally:
            with self._changed:
                self._held -= need.all
                self._changed.notify_all()

    def _take(self, need: Need, waiting: Callable[[], None]) -> None:
        begun: float | None = None
        with self._changed:
            while not self._fits(need.all):
                if not self._held:
                    begun = begun or time.monotonic()
                    self._check(need, time.monotonic() - begun)
                waiting()
                self._changed.wait(LOOK)
            self._held += need.all

    def _fits(self, wanted: int) -> bool:
        if not self._held:
            self._free = self._measure()
        return self._held + wanted <= self._free

    def _check(self, need: Need, waited: float) -> None:
        limit = self._limit()
        if need.all > limit or waited > self._patience:
            plural = "s" if need.devices > 1 else ""
            free = f"{size(self._free)} free of {size(limit)}"
            room = f"{need.devices} simulated device{plural} on {free}"
            raise UserError(need.words(self._free / need.devices, room))


def _free_for_this_process() -> Callable[[], float]:
    """What is free, and what lanes left to this process: it keeps freed memory (core.cpu_flags)."""
    before = resident_memory()
    return lambda: free_memory() + max(0.0, resident_memory() - before)
