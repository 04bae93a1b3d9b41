"""Plan that was saved beside its sweep (`plan.json`), as pages and pictures show it."""

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

UNREADABLE = (
    "The plan is not shown: plan.json is damaged or of another version. Repeat `harness plan ... --html` to"
    " write it again."
)


@dataclass(frozen=True)
class PlanSection:
    """Part of a plan under one title: a table, sentences, or both."""

    title: str
    content: Table = field(default_factory=lambda: Table((), ()))
    lines: tuple[str, ...] = ()
    folded: bool = False
    """True if it is shown only on request."""


@dataclass(frozen=True, kw_only=True)
class PlanRow(RunOnChips):
    """Run as pages show it. Its name has no seed if the sweep has only one."""

    group: str
    """Name of the table row for this run and equal ones; empty: the row has the name of another run."""
    variant: str


@dataclass(frozen=True)
class SavedPlan:
    """Contents of `plan.json` that pages and pictures show."""

    command: str
    machine: str
    shares: tuple[ChipShare, ...]
    """Chips by kind; empty for this machine, where runs use the same devices one after another."""
    rows: tuple[PlanRow, ...]
    days: Interval | None
    """Days until the last run that can end has ended."""
    parts: tuple[PlanSection, ...]
    """Sections that the terminal showed."""


def save_plan(sweep: SweepDir, content: dict[str, Any]) -> None:
    """Write `plan.json`: the content of `harness plan --json`, and under `page` the printed sections."""
    atomic_files.write_checksummed_json(sweep.plan, content)


def read_plan(sweep: SweepDir) -> SavedPlan | None:
    """Read `plan.json`. Returns None without one, and a plan with a note if this version cannot read it."""
    if not sweep.plan.exists():
        return None
    try:
        return to_plan(atomic_files.read_checksummed_json(sweep.plan) or {})
    except (KeyError, TypeError, AttributeError):
        return SavedPlan("", "", (), (), None, (PlanSection("Unreadable plan", lines=(UNREADABLE,)),))


def to_plan(content: Mapping[str, Any]) -> SavedPlan:
    """Return the plan in the content of `harness plan --json`. Raises KeyError or TypeError for another."""
    page, cluster = content["page"], content["cluster"]
    return SavedPlan(
        command=page["command"],
        machine=cluster["name"],
        shares=tuple(ChipShare(**share) for share in cluster["shares"]),
        rows=tuple(_to_row(run, page["runs"][run["name"]]) for run in content["runs"]),
        days=_to_interval(cluster["days"]),
        parts=tuple(_to_section(section) for section in page["parts"]),
    )


def _to_row(run: Mapping[str, Any], names: Mapping[str, str]) -> PlanRow:
    content: dict[str, Any] = {field.name: run[field.name] for field in dataclasses.fields(RunOnChips)}
    content["memory"] = {name: _to_interval(part) for name, part in run["memory"].items()}
    content["days"] = _to_interval(run["days"])
    content.update(names)
    return PlanRow(**content)


def _to_interval(number: Mapping[str, float] | None) -> Interval | None:
    return None if number is None else Interval(number["value"], number["low"], number["high"])


def _to_section(part: Mapping[str, Any]) -> PlanSection:
    content = make_table(*(part["content"][key] for key in ("columns", "rows", "left")))
    return PlanSection(part["title"], content, part["lines"], part["folded"])
