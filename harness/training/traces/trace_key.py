"""Key of a trace: everything from which Python could make a program.

It has the code of all loaded modules outside installed packages, the installed packages that this code
imports with the time and size of each file, names and versions of all others, the environment of the process
but for names that say where it runs, the options of JAX, its devices and compiler, and what the caller adds
of the run. What is not known makes another key, and so a trace.

A trace could still depend on what no key can hold: the clock, random numbers, whether a file exists. Such a
program would be another one in every process, so no run could be repeated.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import jax

from harness.core.hashing import hash_json
from harness.core.loaded_code import (
    code_hash,
    imported_names,
    is_users,
    outside_reads,
    own_code,
    site_folders,
)

_NO_PROGRAM = (
    "aot", "cli", "compare", "data", "estimate", "inspection", "launcher", "plan", "records", "report",
    "training/output", "worker",
)  # fmt: skip
"""Rooms that no program is made of. Which of their modules are loaded depends on what the process did."""
_PLACE_NAMES = {
    "_", "COLUMNS", "DISPLAY", "HOME", "HOSTNAME", "LINES", "LOGNAME", "LS_COLORS", "MAIL", "OLDPWD", "PWD",
    "PYTEST_CURRENT_TEST", "SHELL", "SHLVL", "STY", "TERM", "TMPDIR", "TMUX", "TMUX_PANE", "TTY", "USER",
    "WINDOWID",
}  # fmt: skip
_PLACE_PREFIXES = ("AB_HARNESS_", "DBUS_", "SLURM_", "SSH_", "TERM_", "XDG_")
"""Variables of the shell, the scheduler and this package that say where a process runs, not what it makes."""
_CODE_SUFFIXES = (".py", ".so")
_hashes: dict[tuple[int, tuple[Path, ...]], list[str]] = {}


def trace_inputs(name: str, program: Sequence[Any], devices: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what identifies a trace, as plain data; None if the process has code that is not known, or whose
    modules have read other files.

    `name` is the program's; `program` holds all that it depends on of its run, `devices` what it depends on
    of the machine.
    """
    parts = own_code()
    if parts is None or outside_reads():
        return None
    return {
        "name": name,
        "program": hash_json(program),
        "devices": {**devices, "visible": jax.device_count(), "local": jax.local_device_count()},
        "sources": _source_hashes(parts),
        "environment": hash_json(_environment()),
        "options": hash_json({option: _option(option) for option in jax.config.values}),
    }


def _source_hashes(parts: Sequence[CodeType | Path]) -> list[str]:
    """Return hashes of all code, which stay the same until more of it is loaded."""
    codes = [part for part in parts if isinstance(part, CodeType)]
    state = len(codes), tuple(part for part in parts if isinstance(part, Path))
    if state not in _hashes:
        _hashes[state] = _hash_sources(parts, codes)
    return _hashes[state]


def _hash_sources(parts: Sequence[CodeType | Path], codes: Sequence[CodeType]) -> list[str]:
    users_names = _names(filter(is_users, codes))
    if not any(map(_is_room_of_data, users_names)):
        parts = own_code(_NO_PROGRAM) or parts
        codes = [part for part in parts if isinstance(part, CodeType) and not is_users(part)]
    names = users_names | _names(codes)
    # Loaded or not: which they are depends on what the process did, such as tokenising.
    packages = {name.partition(".")[0] for name in names} - {""}
    return [sys.version, code_hash(parts), _installed_names(), _installed_files(frozenset(packages))]


def _names(codes: Iterable[CodeType]) -> set[str]:
    return set[str]().union(*map(imported_names, codes))


def _is_room_of_data(name: str) -> bool:
    rooms = tuple(f"harness.{room.replace('/', '.')}" for room in _NO_PROGRAM)
    return name == "harness" or name.startswith(rooms)


@functools.cache
def _installed_names() -> str:
    """Return a hash of names, versions and times of all installed distributions."""
    entries = [
        f"{entry.name} {entry.stat().st_mtime_ns}"
        for folder in site_folders()
        for entry in os.scandir(folder)
        if entry.name.endswith((".dist-info", ".egg-info"))
    ]
    return hash_json(sorted(entries))


@functools.cache
def _installed_files(packages: frozenset[str]) -> str:
    """Return a hash of path, time and size of all code of installed packages."""
    digest = hashlib.sha256()
    for folder in site_folders():
        for package in sorted(packages):
            for line in sorted(_file_lines(folder / package)):
                digest.update(line.encode())
    return digest.hexdigest()


def _file_lines(folder: Path) -> Iterable[str]:
    pending = [str(folder)] if folder.is_dir() else []
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.name.endswith(_CODE_SUFFIXES):
                state = entry.stat()
                yield f"{entry.path} {state.st_mtime_ns} {state.st_size}\n"


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _PLACE_NAMES and not name.startswith(_PLACE_PREFIXES)
    }


def _option(name: str) -> Any:
    """Return the value of an option of JAX, as it is in this thread."""
    return repr(getattr(jax.config, name, None))
