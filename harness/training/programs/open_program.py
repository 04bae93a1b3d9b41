"""Programs of a run, opened: from the cache without a trace where one is known, or traced and compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax

from harness.core.cache.cache_entries import CacheEntry, Note
from harness.core.file_locks import host_dir
from harness.core.progress.report import opaque
from harness.core.progress.waiting import hold_lock
from harness.training.programs.compile_cache import Program, compile_or_load, load_stored, program_entry
from harness.training.programs.lowerings import (
    forget_lowering,
    lowered_program,
    lowered_stub,
    program_key,
    results_structure,
)
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.programs.stored_executable import Device
from harness.training.programs.training_environment import program_environment
from harness.training.traces.known_trace import read_trace, remember_trace, trace_entry
from harness.training.traces.trace_key import trace_inputs


def open_program(
    name: str, specs: ProgramSpecs, devices: Sequence[Device], *, cached: bool, note: Note
) -> Program:
    """Return the program `name` of a run, whose specs are over an abstract mesh, for these devices in mesh
    order. Of several processes of a host that need it, one traces it. With `cached=False` nothing is read or
    written. Raises UserError if the cache folder cannot be used."""
    platform = devices[0].platform
    entry = _trace_entry(name, specs, devices) if cached else None
    if entry is None:
        with opaque(f"traces the program {name}"):
            lowered = lowered_program(name, specs, platform)
        return compile_or_load(lowered, devices, cached=cached, note=note)
    if (program := _load_known(name, entry, specs, devices, note)) is not None:
        return program
    with hold_lock(_trace_lock(entry), f"traces {name}", "set another TMPDIR"):
        if (program := _load_known(name, entry, specs, devices, note)) is not None:
            return program
        with opaque(f"traces the program {name}"):
            lowered = lowered_program(name, specs, platform)
        program = compile_or_load(lowered, devices, note=note)
        if lowered.is_repeatable and _trace_entry(name, specs, devices) == entry:
            structure = results_structure(name, specs)
            remember_trace(entry, lowered.lowered.out_info, lowered.text_hash, structure)
    return program


def remove_stored_program(name: str, specs: ProgramSpecs, devices: Sequence[Device], note: Note) -> None:
    """Remove a program from the cache, and what is known of its trace; this process compiles it anew."""
    entry = _trace_entry(name, specs, devices)
    if entry is not None and (trace := read_trace(entry, note)) is not None:
        text_hash = trace.text_hash
        entry.remove()
    else:
        text_hash = lowered_program(name, specs, devices[0].platform).text_hash
    program_entry(name, text_hash, devices).remove()
    forget_lowering(name, specs, devices[0].platform)


def _trace_entry(name: str, specs: ProgramSpecs, devices: Sequence[Device]) -> CacheEntry | None:
    environment = {"compiler": program_environment(devices), "platform": devices[0].platform}
    counts = {"devices": len(devices), "processes": jax.process_count()}
    inputs = trace_inputs(name, program_key(specs), environment | counts)
    return None if inputs is None else trace_entry(name, inputs)


def _load_known(
    name: str, entry: CacheEntry, specs: ProgramSpecs, devices: Sequence[Device], note: Note
) -> Program | None:
    trace = read_trace(entry, note)
    if trace is None:
        return None
    stored = program_entry(name, trace.text_hash, devices)
    return load_stored(stored, lambda: lowered_stub(name, specs, trace, devices[0].platform), devices, note)


def _trace_lock(entry: CacheEntry) -> Path:
    """Return the lock of a trace; some share one, so that a host has a limited number."""
    return host_dir() / f"trace-{entry.path.stem[-2:]}.lock"
