"""Cache folder: tokens, compiled programs, descriptions. Nothing else is written outside a sweep."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.paths import local_path


def cache_dir(name: str) -> Path:
    """Return a folder below `$AB_HARNESS_CACHE` or ~/.cache/ab-harness; create it if it is missing."""
    root = os.environ.get("AB_HARNESS_CACHE") or Path.home() / ".cache" / "ab-harness"
    folder = Path(local_path(root, "name a folder", "AB_HARNESS_CACHE=")).expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
