"""Result of the timing pass, `timing.json`: the visits of treatments and control, step times, peak memory."""

from __future__ import annotations

from typing import Any

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import SweepDir
from harness.records.sweep import ledger


def write_timing(sweep: SweepDir, content: dict[str, Any]) -> None:
    """Append the result to the ledger, and write it with a checksum."""
    ledger.append(sweep, "timing", content)
    write_checksummed_json(sweep.timing, content)


def read_timing(sweep: SweepDir) -> dict[str, Any] | None:
    """Return the result; None if the file is missing, damaged, or differs from the last one in the ledger."""
    content, entries = read_checksummed_json(sweep.timing), ledger.read_valid(sweep, "timing")
    return content if not entries or entries[-1]["content"] == content else None
