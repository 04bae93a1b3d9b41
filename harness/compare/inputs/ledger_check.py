"""Integrity of a sweep's ledger, and the deviations from the plan that it records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compare.inputs.json_values import dict_or_empty
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

MAX_LISTED = 3
"""Number of runs that a sentence names."""


@dataclass(frozen=True)
class LedgerDeviation:
    """Ledger entry that is a deviation: amendment, restart, damage, drift, replan or late_rule."""

    time: str
    """Time in UTC."""
    kind: str
    words: str


@dataclass(frozen=True)
class LedgerState:
    """Integrity and content of a ledger."""

    head: str
    """Hash of the last entry, which covers all earlier ones; empty without entries."""
    entries: int
    intact: bool
    edited: tuple[int, ...]
    """Positions of entries that were changed after they were written, or whose predecessor is missing."""
    unreadable: int
    """Number of lines that are damaged or were cut short by a kill."""
    deviations: tuple[LedgerDeviation, ...]


def read_ledger_state(sweep: SweepDir) -> LedgerState:
    """Read the ledger of a sweep and check its hash chain; nothing raises on damage."""
    entries, edited_positions = ledger.read(sweep), ledger.edited_positions(sweep)
    return LedgerState(
        head=str(entries[-1]["hash"]) if entries else "",
        entries=len(entries),
        intact=bool(entries) and not edited_positions,
        edited=tuple(edited_positions),
        unreadable=ledger.unreadable_lines(sweep),
        deviations=tuple(_ledger_deviations(entries)),
    )


def placed_meshes(sweep: SweepDir) -> dict[str, Any]:
    """Return the mesh of each run in its latest placement."""
    return {
        name: place.get("mesh")
        for entry in ledger.read(sweep, "placement")
        for name, place in entry_runs(entry).items()
        if isinstance(place, dict)
    }


def _ledger_deviations(entries: Sequence[dict[str, Any]]) -> Iterator[LedgerDeviation]:
    placed_names: set[str] = set()
    for entry in entries:
        runs = entry_runs(entry)
        if entry["kind"] == "rule" and placed_names:
            yield LedgerDeviation(entry["time"], "late_rule", "the rule was fixed after runs were placed")
        if entry["kind"] == "placement":
            if repeated_names := [name for name in runs if name in placed_names]:
                num_unlisted = len(repeated_names) - MAX_LISTED
                suffix = f" and {num_unlisted} more" if num_unlisted > 0 else ""
                text = f"placed again: {', '.join(repeated_names[:MAX_LISTED])}{suffix}"
                yield LedgerDeviation(entry["time"], "replan", text)
            placed_names |= runs.keys()
        elif (text := _deviation_text(entry["kind"], entry["content"])) is not None:
            yield LedgerDeviation(entry["time"], entry["kind"], text)


def _deviation_text(kind: str, content: Any) -> str | None:
    """Describe a ledger entry; None if it is not a deviation."""
    fields = dict_or_empty(content)
    run, faults = fields.get("run"), fields.get("faults")
    faults_text = "; ".join(map(str, faults)) if isinstance(faults, list) and faults else "damaged"
    return {
        "amendment": f"{fields.get('detail', '')}",
        "restart": f"{run} starts over: {fields.get('why')}",
        "damage": f"{run or fields.get('file')}: {faults_text}",
        "drift": f"{run} continued from step {fields.get('step')}: {fields.get('what')}",
    }.get(kind)


def entry_runs(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the runs of a placement entry, by name; empty if it has none."""
    return dict_or_empty(dict_or_empty(entry["content"]).get("runs"))
