"""Content of the cache folder: its kinds, their sizes, and the removal of old entries.

`harness sweep` removes what no command has used for MAX_AGE_DAYS, and beyond MAX_PROGRAM_BYTES the programs
that were not used for longest. Everything removed can be made again; what was measured or allowed stays.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.cache.cache_dir import cache_dir, cache_root
from harness.core.errors import UserError, did_you_mean

MAX_AGE_DAYS = 60
MAX_PROGRAM_BYTES = 10 * 2**30
_DAY = 86_400.0


@dataclass(frozen=True)
class CacheKind:
    """Kind of content, in a folder of the cache."""

    purpose: str
    can_remake: bool = True
    """Whether it can be made again. Measurements and what the user allowed cannot."""
    entries: str = "*"
    """Pattern of its entries, files or folders, below its folder."""


KINDS = {
    "programs": CacheKind("compiled programs"),
    "traces": CacheKind("programs that need no trace"),
    "tokens": CacheKind("tokenised text"),
    "token_index": CacheKind("documents in files of tokens"),
    "tasks": CacheKind("scripts and logs of tasks that tokenise"),
    "surveys": CacheKind("checksums and sizes of data files"),
    "checkpoints": CacheKind("templates of checkpoints"),
    "verified": CacheKind("checksums of checkpoints that were verified"),
    "described": CacheKind("sizes and FLOPs of configs"),
    "layers": CacheKind("answers of compilers for plans"),
    "report": CacheKind("the chart library of pages"),
    "remote": CacheKind("copies of sweeps from URLs", entries="*/*"),
    "sources": CacheKind("copies of data files from URLs"),
    "cost": CacheKind("step times measured here, for predictions", can_remake=False),
    "calibration": CacheKind("predicted and measured step times", can_remake=False),
    "trusted": CacheKind("modules that you trained with", can_remake=False),
}


@dataclass(frozen=True)
class CacheUsage:
    """Size of one kind of content."""

    kind: str
    entries: int
    bytes: int


def cache_usage() -> list[CacheUsage]:
    """Return the size of each kind that is there, in the order of KINDS."""
    usages = []
    for kind in KINDS:
        paths = _entries(kind)
        if paths:
            usages.append(CacheUsage(kind, len(paths), sum(map(_size, paths))))
    return usages


def clear_cache(kinds: Sequence[str]) -> int:
    """Remove all content of these kinds, or without a name all that can be made again. Return its bytes.
    Raises UserError for an unknown kind."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{kind}: the cache has no such content; {did_you_mean(kind, KINDS)}")
    kind_names = kinds or [name for name, kind in KINDS.items() if kind.can_remake]
    return _remove(path for kind in kind_names for path in _entries(kind))


def remove_unused(now: float | None = None) -> int:
    """Remove old entries that can be made again, and programs beyond their limit. Return their bytes."""
    oldest = (time.time() if now is None else now) - MAX_AGE_DAYS * _DAY
    kinds = [name for name, kind in KINDS.items() if kind.can_remake]
    paths = [path for kind in kinds for path in _entries(kind) if _last_use(path) < oldest]
    return _remove(paths) + _remove(_programs_beyond_limit())


def _programs_beyond_limit() -> list[Path]:
    total, beyond = 0, []
    for path in sorted(_entries("programs"), key=_last_use, reverse=True):
        total += _size(path)
        if total > MAX_PROGRAM_BYTES:
            beyond.append(path)
    return beyond


def _entries(kind: str) -> list[Path]:
    """Return the entries of a kind; empty without a cache folder. Locks and temporary files are none."""
    if not (cache_root() / kind).is_dir():
        return []
    paths = cache_dir(kind).glob(KINDS[kind].entries)
    return [path for path in paths if path.suffix != ".lock" and not path.name.startswith(".")]


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another command removed it
        return time.time()


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _remove(paths: Iterable[Path]) -> int:
    total_bytes = 0
    for path in paths:
        total_bytes += _size(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return total_bytes
