"""What the ledger of a sweep vouches for: whether its chain is whole, and all that did not go as planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.paths import SweepDir
from harness.records.sweep import ledger

NAMED = 3
"""Runs that a sentence names."""


@dataclass(frozen=True)
class Departure:
    """An entry that is a deviation: amendment, restart, damage, drift, replan, late_rule."""

    time: str
    """UTC."""
    kind: str
    words: str


@dataclass(frozen=True)
class LedgerState:
    head: str
    """Hash of the last entry, which holds those of all before it; empty without entries."""
    entries: int
    intact: bool
    edited: tuple[int, ...]
    """Positions of entries that were changed afterwards, or lost the one before them."""
    unreadable: int
    """Lines that are no entry: cut short by a kill, or damaged."""
    deviations: tuple[Departure, ...]


def ledger_state(sweep: SweepDir) -> LedgerState:
    entries, edited = ledger.read(sweep), ledger.edited(sweep)
    unreadable = _lines(sweep) - len(entries)
    return LedgerState(
        head=str(entries[-1]["hash"]) if entries else "",
        entries=len(entries),
        intact=bool(entries) and not edited,
        edited=tuple(edited),
        unreadable=unreadable,
        deviations=tuple(_departures(entries)),
    )


def places(sweep: SweepDir) -> dict[str, Any]:
    """The mesh of each run, as it was placed last."""
    return {
        name: place.get("mesh")
        for entry in ledger.read(sweep, "placement")
        for name, place in _runs(entry).items()
        if isinstance(place, dict)
    }


def _departures(entries: Sequence[dict[str, Any]]) -> Iterator[Departure]:
    placed: set[str] = set()
    for entry in entries:
        runs = _runs(entry)
        if entry["kind"] == "rule" and placed:
            yield Departure(entry["time"], "late_rule", "the rule was written down after runs were placed")
        if entry["kind"] == "placement":
            if again := [name for name in runs if name in placed]:
                yield Departure(entry["time"], "replan", f"placed anew: {_listed(again)}")
            placed |= runs.keys()
        elif (said := _said(entry["kind"], entry["content"])) is not None:
            yield Departure(entry["time"], entry["kind"], said)


def _said(kind: str, content: Any) -> str | None:
    """None for an entry that is no deviation."""
    told = content if isinstance(content, dict) else {}
    faults = told.get("faults")
    return {
        "amendment": lambda: f"{told.get('detail', '')}",
        "restart": lambda: f"{told.get('run')} starts over: {told.get('why')}",
        "damage": lambda: f"{told.get('run') or told.get('file')}: {_faults(faults)}",
        "drift": lambda: f"{told.get('run')} went on from step {told.get('step')}: {told.get('what')}",
    }.get(kind, lambda: None)()


def _faults(found: Any) -> str:
    return "; ".join(map(str, found)) if isinstance(found, list) and found else "damaged"


def _runs(entry: dict[str, Any]) -> dict[str, Any]:
    content = entry["content"]
    runs = content.get("runs") if isinstance(content, dict) else None
    return runs if isinstance(runs, dict) else {}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _lines(sweep: SweepDir) -> int:
    try:
        return sum(1 for line in sweep.ledger.read_text(errors="replace").splitlines() if line.strip())
    except OSError:
        return 0
