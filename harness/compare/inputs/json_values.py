"""Values of JSON content that may be damaged: each is checked, and a wrong one counts as missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core import atomic_files
from harness.records.typed_values import fits


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing, damaged or holds something else."""
    return dict_or_empty(atomic_files.read_json(path))


def dict_or_empty(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty dictionary."""
    return value if isinstance(value, dict) else {}


def number_or_none(value: Any) -> float | None:
    """Return the value if it is a JSON number, else None. Booleans, NaN and infinities are not numbers."""
    return float(value) if fits(value, float) else None
