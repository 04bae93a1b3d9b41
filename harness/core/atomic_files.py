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

from harness.core.paths import within_folder
from harness.core.progress.report import report

_CHECKSUM_KEY = "checksum"
_DIGITS = 64
MAX_RECORD_BYTES = 64 * 2**20
"""Size above which a record counts as damaged; the largest ones have a few MiB."""
MAX_DEPTH = 64
"""Levels of nested lists and objects in a record. Deeper ones could exhaust the stack of a reader."""


HASH_BYTES = 2**22
"""Bytes of a file that are hashed at a time."""
UMASK_VARIABLE = "AB_HARNESS_UMASK"
"""Environment variable of remote workers: the driver's umask, octal, so that a team can share their files."""


class CorruptFile(Exception):
    """A file on disk differs from what was written; the caller computes or writes it again."""


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write to a temporary file beside `path`, fsync it, rename it. A kill leaves the old file intact. Only
    the owner may read a `private` file; the umask decides about others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        mode = 0o600 if private else 0o666
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def umask() -> int:
    """Return the umask of this process. Call it before there are threads, as it sets the umask twice."""
    value = os.umask(0o077)
    os.umask(value)
    return value


def keep_own_access() -> None:
    """Use the driver's umask in a remote worker, without what would shut ourselves out of our files."""
    os.umask(int(os.environ.get(UMASK_VARIABLE) or f"{umask():o}", 8) & ~0o700)


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
    write_text(path, _json_text(content))


def _json_text(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def read_json(path: Path) -> Any | None:
    """Return the parsed content; None if the file is missing, a link out of its folder, or not JSON."""
    text = read_record(path)
    return None if text is None else parse_json(text)


def read_record(path: Path, limit: int = MAX_RECORD_BYTES, errors: str = "strict") -> str | None:
    """Return the text of a record; None if it is missing, no regular file, not UTF-8 (under `errors`), longer
    than `limit` bytes, or a link out of its folder."""
    try:
        within_folder(path)
        if not path.is_file() or path.stat().st_size > limit:
            return None
        return path.read_text("utf-8", errors)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return None


def parse_json(text: str) -> Any | None:
    """Return the content of JSON text; None if it is not JSON, nested too deep, or has an endless integer."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_DEPTH):
        nodes = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for node in nodes for child in node if isinstance(child, dict | list)]
        if not level:
            return content
    return None


def write_checksummed_json(path: Path, content: dict[str, Any], *, private: bool = False) -> None:
    """Write JSON with its own checksum, because a flipped bit in a number is still valid JSON."""
    write_bytes(path, _json_text(content | {_CHECKSUM_KEY: json_checksum(content)}).encode(), private=private)


def read_checksummed_json(path: Path) -> dict[str, Any] | None:
    """Return the object without its checksum; None if the file is missing, not a JSON object, or changed.

    A file without a checksum comes from an earlier version and is accepted.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    checksum = content.pop(_CHECKSUM_KEY, None)
    if checksum is None:
        return None if _has_misnamed_checksum(content) else content
    return content if checksum == json_checksum(content) else None


def _has_misnamed_checksum(content: dict[str, Any]) -> bool:
    """Return whether the name of the checksum was damaged: another key holds the checksum of the others."""
    names = [name for name, value in content.items() if isinstance(value, str) and len(value) == _DIGITS]
    others = ({k: v for k, v in content.items() if k != name} for name in names)
    return any(content[name] == json_checksum(rest) for name, rest in zip(names, others, strict=True))


def json_checksum(content: dict[str, Any]) -> str:
    """Return the sha256 of the JSON with sorted keys, 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        while piece := file.read(HASH_BYTES):
            digest.update(piece)
            report(f"hashing {path.name}", file.tell(), size)
    return digest.hexdigest()
