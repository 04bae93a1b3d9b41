"""Which examples a finished run consumed: what decides whether two runs are paired."""

from __future__ import annotations

from typing import Any

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir


def write_examples(run: RunDir, steps: int, example_hash: str) -> None:
    write_checksummed_json(run.examples, {"steps": steps, "hash": example_hash})


def read_examples(run: RunDir) -> dict[str, Any] | None:
    """{"steps", "hash"}; None where the file is missing or damaged."""
    return read_checksummed_json(run.examples)
