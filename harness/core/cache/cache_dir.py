"""Cache folder: what can be made again, and what this user's machine has measured. Nothing else is written
outside a sweep."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from harness.core.errors import UserError
from harness.core.paths import local_path

VARIABLE = "AB_HARNESS_CACHE"
WAY_OUT = f"Name a folder of your own with {VARIABLE}=FOLDER."
_PRIVATE = 0o700


def cache_root() -> Path:
    """Return $AB_HARNESS_CACHE or ~/.cache/ab-harness, which need not exist. Raises UserError for a URL, and
    where the user has no home."""
    root = os.environ.get(VARIABLE) or "~/.cache/ab-harness"
    try:
        return Path(local_path(root, "name a folder", f"{VARIABLE}=")).expanduser()
    except RuntimeError as error:  # the user has no home
        raise UserError(f"{root}: the cache folder cannot be created ({error}). {WAY_OUT}") from error


def cache_dir(name: str) -> Path:
    """Return a folder below the cache's root; create both if they are missing, for this user alone.

    Raises UserError if that cannot be done, and if anybody else could have written there: whoever can write a
    compiled program decides what the next run executes.
    """
    root = cache_root()
    folder = root / name
    try:
        root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        _check_private(root)
        folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        _check_private(folder)
    except OSError as error:
        raise cache_error(root, error) from error
    return folder


def check_cache_writable() -> None:
    """Raise UserError unless files can be written into the cache folder. Call it before anything starts."""
    try:
        with tempfile.TemporaryFile(dir=cache_dir("")):
            pass
    except OSError as error:
        raise cache_error(cache_root(), error) from error


def cache_error(root: Path, error: OSError) -> UserError:
    """Return the sentence for an error of the file system in the cache folder."""
    return UserError(f"{root}: the cache folder cannot be used ({error.strerror}). {WAY_OUT}")


def _check_private(folder: Path) -> None:
    state = folder.stat()
    if state.st_uid != os.geteuid():
        raise UserError(
            f"{folder}: the cache folder belongs to another user (uid {state.st_uid}), who could decide what "
            f"your runs execute. {WAY_OUT}"
        )
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"{folder}: other users can write into the cache folder, and decide what your runs execute. "
            f"Remove it, or run `chmod -R go-w {folder}`. {WAY_OUT}"
        )
