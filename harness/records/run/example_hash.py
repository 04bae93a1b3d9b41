"""Hash of the examples that a finished run consumed. Two runs are paired if their hashes agree."""

from __future__ import annotations

from typing import Any

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir
from harness.records.run.stream_hash import StreamHash
from harness.records.typed_values import fits


def write_examples(run: RunDir, steps: int, example_hash: str, stream: StreamHash | None = None) -> None:
    """Write the number of steps, the rolling hash of their batches, and the hash of the stream of examples:
    None for a run that an earlier version began."""
    content = {"steps": steps, "hash": example_hash}
    write_checksummed_json(run.examples, content | ({"stream": stream.to_json()} if stream else {}))


def read_examples(run: RunDir) -> dict[str, Any] | None:
    """Return {"steps", "hash"}, and "stream" if it was recorded; None if the file is missing or damaged."""
    content = read_checksummed_json(run.examples)
    is_typed = content is not None and fits(content.get("steps"), int) and fits(content.get("hash"), str)
    return content if is_typed else None
