"""A plan that was kept beside its sweep (`plan.json`), as pages and pictures show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core import atomic_files
from harness.core.interval import Interval
from harness.records.paths import SweepDir
from harness.records.sweep.plan_file import ChipShare, RunOnChips
from harness.report.tables.text_table import Table, make_table

UNITS = (("days", 1.0), ("hours", 24.0), ("minutes", 1440.0), ("seconds", 86_400.0))
"""How many of each a day has; a plan is told in the first of which its longest run takes one."""
GIB = 2.0**30
LOST = (
    "plan.json is damaged, or of another version: the plan is not shown; the same `harness plan ... --html`"
    " writes it again."
)


@dataclass(frozen=True)
class Part:
    """What is said under one title: a table, sentences, or both."""

    title: str
    content: Table = field(default_factory=lambda: Table((), ()))
    lines: tuple[str, ...] = ()
    folded: bool = False
    """Whether it is shown only to who asks for it."""
    wide: tuple[str, ...] = ()
    """Columns that a narrow terminal goes without."""


@dataclass(frozen=True, kw_only=True)
class Row(RunOnChips):
    """One run as pages show it: its name has no seed where the sweep has only one."""

    group: str
    """Name of the table row that shows this run with those like it; empty: the row has another run's name."""
    variant: str


@dataclass(frozen=True)
class KeptPlan:
    command: str
    machine: str
    shares: tuple[ChipShare, ...]
    """Chips by kind; empty on this machine, where runs follow each other on the same devices."""
    rows: tuple[Row, ...]
    days: Interval | None
    """Until the last run that can end has ended."""
    parts: tuple[Part, ...]
    """What the terminal said."""


def keep_plan(sweep: SweepDir, content: dict[str, Any]) -> None:
    """Write `plan.json`: what `harness plan --json` prints, and under `page` what its tables showed."""
    atomic_files.write_checksummed_json(sweep.plan, content)


def read_plan(sweep: SweepDir) -> KeptPlan | None:
    """None where none was kept; of one that this version cannot read, that it is lost."""
    if not sweep.plan.exists():
        return None
    try:
        return _plan(atomic_files.read_checksummed_json(sweep.plan) or {})
    except (KeyError, TypeError, AttributeError):
        return KeptPlan("", "", (), (), None, (Part("Lost", lines=(LOST,)),))


def _plan(content: Mapping[str, Any]) -> KeptPlan:
    page, cluster = content["page"], content["cluster"]
    return KeptPlan(
        command=page["command"],
        machine=cluster["name"],
        shares=tuple(ChipShare(**share) for share in cluster["shares"]),
        rows=tuple(_row(run, page["runs"][run["name"]]) for run in content["runs"]),
        days=_interval(cluster["days"]),
        parts=tuple(_part(each) for each in page["parts"]),
    )


def _row(run: Mapping[str, Any], shown: Mapping[str, str]) -> Row:
    content: dict[str, Any] = {field.name: run[field.name] for field in dataclasses.fields(RunOnChips)}
    content["memory"] = {name: _interval(part) for name, part in run["memory"].items()}
    content["days"] = _interval(run["days"])
    content.update(shown)
    return Row(**content)


def _interval(number: Mapping[str, float] | None) -> Interval | None:
    return None if number is None else Interval(number["value"], number["low"], number["high"])


def _part(part: Mapping[str, Any]) -> Part:
    content = make_table(*(part["content"][key] for key in ("columns", "rows", "left")))
    return Part(part["title"], content, part["lines"], part["folded"])


def time_unit(days: float | None) -> tuple[str, float]:
    """Its name, and how many of it a day has."""
    return next((unit for unit in UNITS if days is None or days * unit[1] >= 1), UNITS[-1])


def memory_unit(most: float) -> tuple[str, float]:
    """Its name, and bytes, for amounts of which this is the largest."""
    return ("GiB", GIB) if most > GIB else ("MiB", GIB / 1024)
