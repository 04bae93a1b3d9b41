"""Entries of the cache: the one way in and out for everything that can be made again.

An entry is a file: a line with a keyed checksum, a line with all that the content depends on, the content.
The key is a random number that this user's first command stores in the cache folder, so an entry that came
from anywhere else, or has one flipped bit, counts as damaged. A damaged entry is removed, with a sentence,
and can be made again. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import atomic_files
from harness.core.cache.cache_dir import WAY_OUT, cache_dir, cache_error, cache_root
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain

_FIRST_WORDS = b"ab-harness cache entry 1, HMAC-SHA256 "
_KEY_BYTES = 32
_KEY_FILE = "key"
DAMAGED = "is damaged"
"""Words of every sentence about a damaged entry."""

Note = Callable[[str], None]
"""Receiver of a sentence about a damaged entry."""


_printed: list[str] = []


def print_note(text: str) -> None:
    """Print the sentence to stderr, and keep it for `take_notes`."""
    print(text, file=sys.stderr, flush=True)
    _printed.append(text)


def take_notes() -> list[str]:
    """Return the sentences that were printed since the last call: stderr of a worker is a file."""
    notes = [*_printed]
    _printed.clear()
    return notes


@dataclass(frozen=True)
class CacheEntry:
    """Entry of one kind (a folder of the cache), by a readable name and all that its content depends on."""

    kind: str
    name: str
    """Start of the file's name; it need not be unique."""
    inputs: Any
    """Plain data that determines the content: config nodes, hashes, versions, flags."""

    @property
    def path(self) -> Path:
        """File of the entry. Raises UserError if the cache folder cannot be used."""
        return cache_dir(self.kind) / f"{self.name}{'-' * bool(self.name)}{hash_json(self.inputs)}"

    def read(self, note: Note = print_note) -> bytes | None:
        """Return the content; None if there is none. Of a damaged entry a `note` is given, and it is removed.
        Raises UserError if the cache folder cannot be used."""
        path = self.path
        try:
            stored = path.read_bytes()
            content = self._open(stored)
            if content is None:
                note(f"{path} {DAMAGED}, or was not written here, so it is not used.")
                path.unlink(missing_ok=True)
            else:
                os.utime(path)  # the age of an entry counts from its last use
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cache_error(cache_root(), error) from error
        return content

    def write(self, content: bytes) -> None:
        """Write the content atomically. Raises UserError if the cache folder cannot be written."""
        try:
            atomic_files.write_bytes(self.path, self._seal(content))
        except OSError as error:
            raise cache_error(cache_root(), error) from error

    def remove(self) -> None:
        """Remove the entry, if there is one."""
        self.path.unlink(missing_ok=True)

    def read_json(self, note: Note = print_note) -> Any | None:
        """Return the content of an entry of `write_json`; None if there is none."""
        content = self.read(note)
        return None if content is None else json.loads(content)

    def write_json(self, content: Any) -> None:
        """Write plain data as JSON."""
        self.write(json.dumps(to_plain(content), sort_keys=True).encode())

    def _seal(self, content: bytes) -> bytes:
        body = self._inputs_line() + content
        return _FIRST_WORDS + _keyed_hash(body) + b"\n" + body

    def _open(self, stored: bytes) -> bytes | None:
        """Return the content if checksum and inputs are right."""
        line, _, body = stored.partition(b"\n")
        inputs = self._inputs_line()
        is_sealed = line.startswith(_FIRST_WORDS) and body.startswith(inputs)
        if not is_sealed or not hmac.compare_digest(line.removeprefix(_FIRST_WORDS), _keyed_hash(body)):
            return None
        return body[len(inputs) :]

    def _inputs_line(self) -> bytes:
        line = {"kind": self.kind, "name": self.name, "inputs": to_plain(self.inputs)}
        return json.dumps(line, sort_keys=True).encode() + b"\n"


def _keyed_hash(body: bytes) -> bytes:
    return hmac.new(_key(), body, hashlib.sha256).hexdigest().encode()


def _key() -> bytes:
    """Return the key of this user's cache; create it if it is missing. Raises UserError if another user could
    have read or written it."""
    path = cache_dir("") / _KEY_FILE
    try:
        if not path.exists() or path.stat().st_size != _KEY_BYTES:
            _create_key(path)
        with path.open("rb") as file:
            state, key = os.fstat(file.fileno()), file.read()
    except OSError as error:
        raise cache_error(cache_root(), error) from error
    if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
        raise UserError(
            f"{path}: other users can use the key of the cache folder. Remove the cache folder. {WAY_OUT}"
        )
    return key


def _create_key(path: Path) -> None:
    """Create the key. If two commands do so at once, entries of one of them may have to be made again."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
    draft.replace(path)
