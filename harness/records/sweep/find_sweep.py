"""Lookup of the sweep that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import UserError, did_you_mean
from harness.core.paths import is_remote, local_path
from harness.records.paths import SweepDir


def find_sweep(path: Path | str) -> SweepDir:
    """Return the sweep at a path. Raises UserError, naming the most similar one below runs/, if none."""
    sweep = SweepDir(Path(local_path(path, f"mount it, or read what ended with `harness compare {path}`")))
    if not any(sweep.runs()):
        if sweep.path.is_dir() and not os.access(sweep.path, os.R_OK | os.X_OK):
            raise UserError(f"{path} cannot be read: its owner has not shared it with you. Ask for that.")
        sweeps = sorted(str(file.parent) for file in Path().glob("runs/*/rule.json"))
        way_out = did_you_mean(str(path), sweeps) if sweeps else "`harness sweep` creates one"
        raise UserError(f"{path} is not a sweep; {way_out}")
    return sweep


def read_sweep(path: Path | str) -> SweepDir:
    """Return the sweep at a path or URL for reading; a remote one is copied first. Raises UserError."""
    if not is_remote(path):
        return find_sweep(path)
    from harness.records.remote.local_copy import fetch_sweep

    return fetch_sweep(str(path))
