"""Hash of the examples that a finished run consumed. Two runs are paired if their hashes agree."""

from __future__ import annotations

from typing import Any

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir
from harness.records.typed_values import fits


def write_examples(run: RunDir, steps: int, example_hash: str) -> None:
    """Write the number of steps and the rolling hash of their examples."""
    write_checksummed_json(run.examples, {"steps": steps, "hash": example_hash})


def read_examples(run: RunDir) -> dict[str, Any] | None:
    """Return {"steps", "hash"}; None if the file is missing or damaged."""
    content = read_checksummed_json(run.examples)
    is_typed = content is not None and fits(content.get("steps"), int) and fits(content.get("hash"), str)
    return content if is_typed else None
