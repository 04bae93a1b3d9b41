"""Files that are either there whole or not at all."""

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
    """What lies on disk is not what was written; it is computed or written again."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename. A kill leaves the old file."""
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
    """Remove the temporary files that kills left in a folder in which nobody writes."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def remove_new_dirs_on_error(folder: Path) -> Iterator[None]:
    """Should what is done within fail, folders on the way to this one that were not there before it are gone
    again, as far as they are empty."""
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for new_folder in new_folders:
                new_folder.rmdir()
        raise


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any | None:
    """The content, or None where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def write_checksummed_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with its own checksum: a flipped bit in a number is still valid JSON."""
    write_json(path, content | {_CHECKSUM_KEY: json_checksum(content)})


def read_checksummed_json(path: Path) -> dict[str, Any] | None:
    """None where the file is missing, no JSON object, or was changed after it was written.

    One without a checksum is of an earlier version, and is taken as it is.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    seal = content.pop(_CHECKSUM_KEY, None)
    return content if seal in (None, json_checksum(content)) else None


def json_checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
