"""Compilation cache: each program is compiled once and loaded by every run that shares it.

JAX's persistent cache misses between sibling sub-meshes, because its key has the device ids. Here a program
is lowered once per process, over a mesh without devices. The text of that lowering, the versions, the machine
and its flags are the key, so any change of the code that changes the program changes the key. The executable
is stored in XLA's own format, as an entry of the cache, and loaded onto the devices of a run.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import jax
import numpy as np

from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import CacheEntry, Note, print_note
from harness.core.file_locks import host_dir
from harness.core.host_memory import free_memory
from harness.core.progress.report import opaque, report
from harness.core.progress.waiting import hold_lock, hold_one_of
from harness.parallel.processes.agreement import to_host
from harness.training.programs.stored_executable import (
    Device,
    compile_lowered,
    executable_bytes,
    load_executable,
)
from harness.training.programs.training_environment import program_environment
from harness.training.traces.known_trace import is_repeatable

Program = jax.stages.Compiled
"""Compiled program, called like the function that it was compiled from."""

MAX_IN_FLIGHT = 8
"""Number of programs of a run in flight at once. On CPU XLA starts 32 per device. With more, a device may
wait for a slot while the others wait for it in a collective: a deadlock (jaxlib 0.10.2)."""
KIND = "programs"
MAX_COMPILES, COMPILE_BYTES = 8, 1.5e9
"""Largest number of programs that a host compiles for its CPU at a time, and free bytes for each: a step of
six layers takes 200 MB, and larger models more."""


@dataclass(frozen=True)
class LoweredProgram:
    """Program over a mesh without devices, and a hash of its text."""

    name: str
    lowered: jax.stages.Lowered

    @property
    def text_hash(self) -> str:
        """Sha256 of the StableHLO without source locations, 64 hex digits."""
        return self._text_facts[0]

    @property
    def is_repeatable(self) -> bool:
        """True if the text is all that there is of the program (`traces.known_trace`)."""
        return self._text_facts[1]

    @functools.cached_property
    def _text_facts(self) -> tuple[str, bool]:
        text = self.lowered.as_text()
        return hashlib.sha256(text.encode()).hexdigest(), is_repeatable(text)

    def entry(self, devices: Sequence[Device]) -> CacheEntry:
        """Return the place of its executable for so many devices in the cache."""
        return program_entry(self.name, self.text_hash, devices)


def program_entry(name: str, text_hash: str, devices: Sequence[Device]) -> CacheEntry:
    """Return the place in the cache of the executable, for so many devices, of a program with such a text."""
    inputs = {
        "program": text_hash,
        "devices": len(devices),
        "processes": jax.process_count(),
        "environment": program_environment(devices),
    }
    return CacheEntry(KIND, name, inputs)


def compile_or_load(
    program: LoweredProgram, devices: Sequence[Device], *, cached: bool = True, note: Note = print_note
) -> Program:
    """Load a program for these devices (in mesh order) from the cache, or compile and store it.

    With `cached=False` the cache is neither read nor written. `note` receives a sentence about a damaged
    entry. Raises UserError if the cache folder cannot be used.
    """
    with opaque(f"reads the program {program.name}"):
        entry = program.entry(devices)

    def lower() -> jax.stages.Lowered:
        return program.lowered

    if cached and (from_cache := load_stored(entry, lower, devices, note)) is not None:
        return from_cache
    cache_dir(KIND)  # raises before the compile
    with _hold_compile(program.name, entry, devices):
        if cached and (from_cache := load_stored(entry, lower, devices, note)) is not None:
            return from_cache
        with opaque(f"compiles the program {program.name}"):
            compiled = compile_lowered(program.lowered, devices)
        if cached and (content := executable_bytes(compiled)) is not None:
            entry.write(content)
    return compiled


@contextmanager
def _hold_compile(name: str, entry: CacheEntry, devices: Sequence[Device]) -> Iterator[None]:
    """Hold the lock of a program, which is compiled once, and for CPU one of as many locks as this host has
    cores and memory for: more compiles than that have aborted processes. All lie on this host: a lock in a
    shared home would let a whole cluster compile one program at a time."""
    purpose, way_out, folder = f"compiles {name}", "set another TMPDIR", host_dir()
    with ExitStack() as locks:
        program = f"compile-{entry.path.stem[-2:]}.lock"  # some programs share one: their number is limited
        locks.enter_context(hold_lock(folder / program, purpose, way_out))
        if devices[0].platform == "cpu":
            slots = [folder / f"compile-slot-{number}.lock" for number in range(_compiles_at_once())]
            locks.enter_context(hold_one_of(slots, purpose, way_out))
        yield


def _compiles_at_once() -> int:
    """Return the number of programs that this host compiles for its CPU at a time, each on one core."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, MAX_COMPILES, int(free_memory() // COMPILE_BYTES)))


def load_stored(
    entry: CacheEntry, lower: Callable[[], jax.stages.Lowered], devices: Sequence[Device], note: Note
) -> Program | None:
    """Load the executable of an entry onto these devices, with its lowering or that of a stub; None if there
    is none. Of one that cannot be loaded a `note` is given, and it is removed."""
    content = entry.read(note)
    if content is None:
        return None
    try:
        return load_executable(lower(), devices, content)
    except Exception as error:  # an executable that this JAX does not take: compile it again
        note(f"{entry.path} cannot be loaded ({type(error).__name__}); it is compiled again.")
        entry.remove()
        return None


def bounded_results(dispatched: Iterable[jax.Array]) -> Iterator[np.ndarray]:
    """Yield the results on the host, in order, with at most MAX_IN_FLIGHT programs in flight."""
    pending = deque()
    for array in dispatched:
        pending.append(array)
        if len(pending) == MAX_IN_FLIGHT:
            yield to_host(pending.popleft())
            report("evaluates")
    yield from map(to_host, pending)
