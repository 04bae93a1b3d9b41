"""Atomic writes and checksummed JSON: a reader sees a complete file or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHECKSUM_KEY = "checksum"


class CorruptFile(Exception):
    """A file on disk differs from what was written; the caller computes or writes it again."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, fsync it, rename it. A kill leaves the old file intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temp_files(folder: Path) -> None:
    """Remove temporary files that killed writers left. Call only while nobody writes into the folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def remove_new_dirs_on_error(folder: Path) -> Iterator[None]:
    """Remove the folders that the block created for `folder` if it raises, as far as they are empty."""
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for new_folder in new_folders:
                new_folder.rmdir()
        raise


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any | None:
    """Return the parsed content; None if the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def write_checksummed_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with its own checksum, because a flipped bit in a number is still valid JSON."""
    write_json(path, content | {_CHECKSUM_KEY: json_checksum(content)})


def read_checksummed_json(path: Path) -> dict[str, Any] | None:
    """Return the object without its checksum; None if the file is missing, not a JSON object, or changed.

    A file without a checksum comes from an earlier version and is accepted.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    checksum = content.pop(_CHECKSUM_KEY, None)
    return content if checksum in (None, json_checksum(content)) else None


def json_checksum(content: dict[str, Any]) -> str:
    """Return the sha256 of the JSON with sorted keys, 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
