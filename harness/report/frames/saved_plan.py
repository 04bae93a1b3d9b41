"""A plan that was kept beside its sweep (`plan.json`), as pages and pictures show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core import atomic_files
from harness.core.span import Span
from harness.records.paths import SweepDir
from harness.report.tables.text_table import Table, table

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


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    """Without the seed where there is but one."""
    group: str
    """The name under which tables show it with those that are alike; empty: another stands for it."""
    variant: str
    kind: str
    chips: int
    """That it was given."""
    devices: int
    """Of these, in use; 0: it fits nowhere."""
    memory: Mapping[str, Span]
    """Bytes of its fullest device, by part."""
    limit: float | None
    """Bytes of a device that a plan may use; None: not known."""
    chip_memory: float | None
    """Bytes of a device."""
    begins: float
    """Days after the first run; those that wait their turn on the same chips begin later."""
    days: Span | None
    """From its beginning to its end; None: it never ends."""
    verdict: str
    """Why it cannot run as announced, or with what alone it can; empty: it can."""


@dataclass(frozen=True)
class Kind:
    """Chips of one kind."""

    name: str
    chip: str
    chips: int


@dataclass(frozen=True)
class KeptPlan:
    command: str
    machine: str
    kinds: tuple[Kind, ...]
    """Empty on this machine, which runs have one after the other."""
    rows: tuple[Row, ...]
    days: Span | None
    """Until the last run that can end has ended."""
    parts: tuple[Part, ...]
    """What the terminal said."""


def keep_plan(sweep: SweepDir, content: dict[str, Any]) -> None:
    """Write `plan.json`: what `harness plan --json` prints, and under `page` what its tables showed."""
    atomic_files.write_sealed(sweep.plan, content)


def read_plan(sweep: SweepDir) -> KeptPlan | None:
    """None where none was kept; of one that this version cannot read, that it is lost."""
    if not sweep.plan.exists():
        return None
    try:
        return _plan(atomic_files.read_sealed(sweep.plan) or {})
    except (KeyError, TypeError, AttributeError):
        return KeptPlan("", "", (), (), None, (Part("Lost", lines=(LOST,)),))


def _plan(content: Mapping[str, Any]) -> KeptPlan:
    page, cluster = content["page"], content["cluster"]
    return KeptPlan(
        command=page["command"],
        machine=cluster["name"],
        kinds=tuple(Kind(each["kind"], each["chip"], each["chips"]) for each in cluster["shares"]),
        rows=tuple(_row(run, page["runs"][run["name"]]) for run in content["runs"]),
        days=_span(cluster["days"]),
        parts=tuple(_part(each) for each in page["parts"]),
    )


def _row(run: Mapping[str, Any], shown: Mapping[str, str]) -> Row:
    return Row(
        name=shown["name"],
        group=shown["group"],
        variant=shown["variant"],
        kind=run["kind"],
        chips=run["chips"],
        devices=run["devices"],
        memory={name: Span(each["value"], each["low"], each["high"]) for name, each in run["memory"].items()},
        limit=run["memory_limit"],
        chip_memory=run["chip_memory"],
        begins=run["begins"],
        days=_span(run["days"]),
        verdict=run["verdict"],
    )


def _span(number: Mapping[str, float] | None) -> Span | None:
    return None if number is None else Span(number["value"], number["low"], number["high"])


def _part(part: Mapping[str, Any]) -> Part:
    content = table(*(part["content"][key] for key in ("columns", "rows", "left")))
    return Part(part["title"], content, part["lines"], part["folded"])


def time_unit(days: float | None) -> tuple[str, float]:
    """Its name, and how many of it a day has."""
    return next((unit for unit in UNITS if days is None or days * unit[1] >= 1), UNITS[-1])


def memory_unit(most: float) -> tuple[str, float]:
    """Its name, and bytes, for amounts of which this is the largest."""
    return ("GiB", GIB) if most > GIB else ("MiB", GIB / 1024)
