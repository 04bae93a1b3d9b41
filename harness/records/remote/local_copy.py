"""Local copies of a remote sweep or file, restricted to the files that a comparison reads.

The name of a copy is a hash of its listing, and a copy is renamed into place when it is complete. It never
changes afterwards, so several commands may read it while another one fetches a newer one. A file that no
longer matches its checksum is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from harness.core import atomic_files
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.remote.file_listing import (
    ChangedDuringRead,
    RemoteFile,
    RemoteFolder,
    as_remote_errors,
    check_archive,
    download,
    list_single_file,
    list_sweep_files,
    open_remote,
)

MAX_TRIES = 3
KEEP_SECONDS = 86_400.0
"""Seconds for which an outdated copy is kept, because a command may be reading it."""
STAMPS = "stamps.json"
"""File with the stamps and checksums of a copy, by path."""
FORMAT = 2
"""Version of the format of STAMPS."""


def fetch_sweep(url: str) -> SweepDir:
    """Return a copy of a remote sweep and its siblings' noise floors. Raises UserError."""
    with as_remote_errors(url):
        remote = open_remote(url)
        list_files = partial(list_sweep_files, remote, partial(print, file=sys.stderr))
        return SweepDir(_up_to_date_copy(remote, list_files) / remote.name)


def fetch_file(url: str) -> Path:
    """Return a copy of one remote file. Raises UserError if it cannot be read."""
    with as_remote_errors(url):
        remote = open_remote(url)
        return _up_to_date_copy(remote, lambda: list_single_file(remote)) / remote.name


def _up_to_date_copy(remote: RemoteFolder, list_files: Callable[[], dict[str, RemoteFile]]) -> Path:
    home = cache_dir("remote") / _digest(remote.url.rstrip("/"))
    home.mkdir(exist_ok=True)
    for _ in range(MAX_TRIES):
        with suppress(ChangedDuringRead):
            copy = _make_copy(remote, list_files(), home)
            _remove_old_copies(home, copy)
            return copy
        remote.files.invalidate_cache()
    raise UserError(f"{remote.url}: its files change while they are read. Repeat the command in a moment.")


def _make_copy(remote: RemoteFolder, listing: dict[str, RemoteFile], home: Path) -> Path:
    """Return the folder of the copy; files that the newest copy has are not downloaded again."""
    check_archive(remote, listing)
    stamps = {path: remote_file.stamp for path, remote_file in listing.items()}
    copy = home / _digest(json.dumps([FORMAT, stamps], sort_keys=True))
    intact = _intact_files(copy)
    if copy.is_dir() and not intact.keys() >= listing.keys():
        print(f"{copy}: this copy of {remote.url} is damaged, so files are fetched again.", file=sys.stderr)
    if not intact.keys() >= listing.keys():
        with tempfile.TemporaryDirectory(dir=home, prefix=".") as scratch:
            fresh = Path(scratch) / "copy"
            newest = max((file.parent for file in home.glob(f"*/{STAMPS}")), key=_modified, default=None)
            _fill_copy(fresh, remote, listing, newest)
            checksums = {path: [stamps[path], atomic_files.file_sha256(fresh / path)] for path in listing}
            atomic_files.write_checksummed_json(fresh / STAMPS, checksums)
            if copy.is_dir():
                copy.rename(Path(scratch) / "damaged")
            with suppress(FileExistsError):  # another command was faster
                fresh.rename(copy)
    os.utime(copy)
    return copy


def _intact_files(copy: Path) -> dict[str, str]:
    """Return the stamp of each file of a copy that is as it was fetched."""
    rows = atomic_files.read_checksummed_json(copy / STAMPS) or {}
    return {path: row[0] for path, row in rows.items() if _matches(copy / path, row)}


def _matches(file: Path, row: object) -> bool:
    try:
        return isinstance(row, list) and len(row) == 2 and atomic_files.file_sha256(file) == row[1]
    except OSError:
        return False


def _fill_copy(
    target: Path, remote: RemoteFolder, listing: dict[str, RemoteFile], previous: Path | None
) -> None:
    """Copy unchanged files from the previous copy, download the others. Raises ChangedDuringRead."""
    stamps = _intact_files(previous) if previous else {}
    missing: list[str] = []
    for path, remote_file in listing.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if previous and stamps.get(path) == remote_file.stamp:
            shutil.copyfile(previous / path, target / path)
        else:
            missing.append(path)
    sources, targets = [listing[path].path for path in missing], [str(target / path) for path in missing]
    try:
        download(remote.files, sources, targets)
    except FileNotFoundError as error:
        raise ChangedDuringRead from error
    if any(listing[path].size not in (None, (target / path).stat().st_size) for path in missing):
        raise ChangedDuringRead


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _remove_old_copies(home: Path, newest: Path) -> None:
    """Remove outdated copies, and partial ones of killed commands."""
    for path in home.iterdir():
        with suppress(FileNotFoundError):
            if path != newest and time.time() - _modified(path) > KEEP_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
