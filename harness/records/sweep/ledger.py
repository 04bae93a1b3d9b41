"""Append-only ledger of the decisions of a sweep; each entry contains the hash of the previous one."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from harness.core.atomic_files import json_checksum, parse_json, read_record
from harness.records.paths import SweepDir

_TEXT_KEYS = {"kind", "time", "previous", "hash"}
_ENTRY_KEYS = _TEXT_KEYS | {"content"}


def append(sweep: SweepDir, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Append and return one entry `{kind, time, previous, content, hash}`, a line of JSON flushed to disk."""
    previous = read(sweep)
    entry = {
        "kind": kind,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "previous": previous[-1]["hash"] if previous else "",
        "content": content,
    }
    entry["hash"] = json_checksum(entry)
    sweep.path.mkdir(parents=True, exist_ok=True)
    content_before = sweep.ledger.read_bytes() if sweep.ledger.exists() else b""
    cut_short = content_before and not content_before.endswith(b"\n")  # by a kill: end that line first
    with sweep.ledger.open("a") as file:
        file.write(("\n" if cut_short else "") + json.dumps(entry, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return entry


def read(sweep: SweepDir, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the readable entries in order, of one kind or of all."""
    entries = []
    for line in _lines(sweep):
        entry = parse_json(line)
        if not isinstance(entry, dict) or not entry.keys() >= _ENTRY_KEYS:
            continue
        if all(isinstance(entry[name], str) for name in _TEXT_KEYS):
            entries.append(entry)
    return [entry for entry in entries if kind in (None, entry["kind"])]


def read_valid(sweep: SweepDir, kind: str) -> list[dict[str, Any]]:
    """Return the unchanged entries of a kind, the only ones to act upon."""
    return [entry for entry in read(sweep, kind) if _is_unchanged(entry)]


def edited_positions(sweep: SweepDir) -> list[int]:
    """Return the positions of entries that were changed after writing or lost their predecessor."""
    wrong, previous = [], ""
    for position, entry in enumerate(read(sweep)):
        if not _is_unchanged(entry) or entry["previous"] != previous:
            wrong.append(position)
        previous = entry["hash"]
    return wrong


def unreadable_lines(sweep: SweepDir) -> int:
    """Return the number of lines that `read` leaves out: damaged, or cut short by a kill. A ledger that is
    there and holds nothing counts as one."""
    if not os.path.lexists(sweep.ledger):
        return 0
    lines = _lines(sweep)
    return len(lines) - len(read(sweep)) if lines else 1


def _lines(sweep: SweepDir) -> list[str]:
    text = read_record(sweep.ledger, errors="replace") or ""
    return [line for line in text.split("\n") if line.strip()]


def _is_unchanged(entry: dict[str, Any]) -> bool:
    return json_checksum({key: value for key, value in entry.items() if key != "hash"}) == entry["hash"]
