"""Compilation cache: each program is compiled once and loaded by every run that shares it.

JAX's persistent cache misses between sibling sub-meshes, because its key has the device ids. Here a program
is lowered once per process, over a mesh without devices. The text of that lowering, the versions, the machine
and its flags are the key, so any change of the code that changes the program changes the key. The executable
is stored in XLA's own format, as an entry of the cache, and loaded onto the devices of a run.
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import CacheEntry, Note, print_note
from harness.core.file_locks import host_dir
from harness.core.progress.report import opaque, report
from harness.core.progress.waiting import hold_lock
from harness.parallel.processes.agreement import to_host
from harness.training.programs.stored_executable import (
    Device,
    compile_lowered,
    executable_bytes,
    load_executable,
)
from harness.training.programs.training_environment import program_environment

Program = jax.stages.Compiled
"""Compiled program, called like the function that it was compiled from."""

MAX_IN_FLIGHT = 8
"""Number of programs of a run in flight at once. On CPU XLA starts 32 per device. With more, a device may
wait for a slot while the others wait for it in a collective: a deadlock (jaxlib 0.10.2)."""
KIND = "programs"


@dataclass(frozen=True)
class LoweredProgram:
    """Program over a mesh without devices, and a hash of its text."""

    name: str
    lowered: jax.stages.Lowered

    @functools.cached_property
    def text_hash(self) -> str:
        """Sha256 of the StableHLO without source locations, 64 hex digits."""
        return hashlib.sha256(self.lowered.as_text().encode()).hexdigest()

    def entry(self, devices: Sequence[Device]) -> CacheEntry:
        """Return the place of its executable for so many devices in the cache."""
        inputs = {
            "program": self.text_hash,
            "devices": len(devices),
            "processes": jax.process_count(),
            "environment": program_environment(devices),
        }
        return CacheEntry(KIND, self.name, inputs)


def compile_or_load(
    program: LoweredProgram, devices: Sequence[Device], *, cached: bool = True, note: Note = print_note
) -> Program:
    """Load a program for these devices (in mesh order) from the cache, or compile and store it.

    With `cached=False` the cache is neither read nor written. `note` receives a sentence about a damaged
    entry. Raises UserError if the cache folder cannot be used.
    """
    with opaque(f"reads the program {program.name}"):
        entry = program.entry(devices)
    if cached and (from_cache := _load(program, entry, devices, note)) is not None:
        return from_cache
    cache_dir(KIND)  # raises before the compile
    with hold_lock(_compile_lock(entry, devices), f"compiles {program.name}", "set another TMPDIR"):
        if cached and (from_cache := _load(program, entry, devices, note)) is not None:
            return from_cache
        with opaque(f"compiles the program {program.name}"):
            compiled = compile_lowered(program.lowered, devices)
        if cached and (content := executable_bytes(compiled)) is not None:
            entry.write(content)
    return compiled


def _compile_lock(entry: CacheEntry, devices: Sequence[Device]) -> Path:
    """Return the lock of a compile. A host compiles one program at a time for its CPU: parallel compiles have
    aborted processes on an overloaded one. For accelerators each program has a lock of its own. Either lies
    on this host: a lock in a shared home would let a whole cluster compile one program at a time."""
    on_cpu = devices[0].platform == "cpu"
    return host_dir() / ("compile.lock" if on_cpu else f"compile-{entry.path.stem}.lock")


def _load(
    program: LoweredProgram, entry: CacheEntry, devices: Sequence[Device], note: Note
) -> Program | None:
    content = entry.read(note)
    if content is None:
        return None
    try:
        return load_executable(program.lowered, devices, content)
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
