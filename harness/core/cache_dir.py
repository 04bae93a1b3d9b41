"""Cache folder: tokens, compiled programs, descriptions. Nothing else is written outside a sweep."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import UserError
from harness.core.paths import local_path


def cache_dir(name: str) -> Path:
    """Return a folder below `$AB_HARNESS_CACHE` or ~/.cache/ab-harness; create it if it is missing. Raises
    UserError if that cannot be done, as where the home folder does not exist."""
    root = os.environ.get("AB_HARNESS_CACHE") or "~/.cache/ab-harness"
    try:
        folder = Path(local_path(root, "name a folder", "AB_HARNESS_CACHE=")).expanduser() / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a RuntimeError: the user has no home
        reason = error.strerror if isinstance(error, OSError) else error
        way_out = "Name a folder that can be written with AB_HARNESS_CACHE=FOLDER."
        raise UserError(
            f"{os.path.expanduser(root)}: the cache folder cannot be created ({reason}). {way_out}"
        ) from error
    return folder
