"""A fresh folder for each example that Hypothesis draws, gone with the process, and how many of those."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings

few = settings(max_examples=25, deadline=None)

_root = tempfile.TemporaryDirectory(prefix="records-")


def fresh() -> Path:
    return Path(tempfile.mkdtemp(dir=_root.name))
