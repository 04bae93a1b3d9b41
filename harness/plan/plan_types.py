"""What `harness plan` says of a sweep, whatever machine it is for: one entry a run, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.config.schema.run import Config
from harness.plan.cost_model.layouts import Layout
from harness.plan.predict import Evidence, Number
from harness.records.run.provenance import Facts

COUNTED: dict[str, str] = dict.fromkeys(
    ("parameters", "active_parameters", "flops_per_token"), Evidence.closed_form.value
)
"""What is exact on any machine."""


class Described(Protocol):
    """A run of a sweep that was described."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Way:
    """One way to go on after an interruption."""

    name: str
    save_minutes: float
    """Between saves, Daly 2006: what `goodput` is of."""
    save_minutes_young: float
    """The same, Young 1974."""
    goodput: float
    """Share of the time that trains and is not lost again; 0: none."""


@dataclass(frozen=True)
class Alternative:
    """A layout that was looked at and not chosen."""

    layout: Layout
    step_seconds: float
    bytes: float
    """Of the fullest device."""
    why: str
    """Why it is not the one that is chosen."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """Counts are plain numbers; what is predicted has low, high and its evidence beside it."""

    name: str
    parameters: int
    """All, with embedding and head."""
    active_parameters: int
    """Those that one token passes through, without embedding and head."""
    flops_per_token: float
    """Model FLOPs of one trained token, causal."""
    tokens: int | None
    kind: str
    """Of chips."""
    chips: int
    """That it was given, in whole fast domains."""
    devices: int
    """Of these, in use; 0: it cannot run."""
    layout: Layout | None = None
    alternatives: tuple[Alternative, ...] = ()
    """The next best layouts, then those that would be faster and do not fit, and the best without each axis;
    empty where a sibling's layout was taken."""
    memory: dict[str, Number] = field(default_factory=dict)
    """Bytes of the fullest device, by part."""
    memory_limit: float | None = None
    """Bytes of a device that a plan may use; None: not known."""
    chip_memory: float | None = None
    """Bytes of a device; None: not known."""
    step_seconds: Number | None = None
    mfu: Number | None = None
    """Of the 16-bit peak; None: the peak is not known."""
    begins: float = 0.0
    """Days until its turn, where runs take turns on the same chips."""
    days: Number | None = None
    """From its turn to its end, interruptions and saves included; None: it never ends."""
    gigawatt_hours: Number | None = None
    """At the meter, of all its chips."""
    mtbf_hours: float | None = None
    """Mean between interruptions."""
    interruptions: float | None = None
    """Expected until its end."""
    recovery: tuple[Way, ...] = ()
    """Simplest first; `days` counts with the one whose goodput is highest."""
    verdict: str = ""
    """Why it cannot run as announced, or with what alone it can; empty: it can."""
    notes: tuple[str, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    """The layer that each number comes from, by its key here."""

    @property
    def bytes(self) -> float | None:
        """Of the fullest device."""
        return sum(part.value for part in self.memory.values()) if self.memory else None


@dataclass(frozen=True)
class Share:
    """The chips of one kind, and who has them."""

    kind: str
    chip: str
    chips: int
    given: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Meter:
    """Megawatts of chips under load, with hosts, switches and cooling."""

    machine: float
    """Of every chip."""
    runs: float
    """Of those that runs were given."""
    site: float | None
    """What the site can draw; None: not known."""
    possible: bool
    """Whether the site can feed the runs' chips all at once; true where it is not known."""


@dataclass(frozen=True)
class Mixed:
    """What one job over all kinds of chips would cost, and partition by kind wins back."""

    efficiency: float
    """Of products alone: speed of the slowest kind over the mean of all chips."""
    days: float | None
    """Until the last run has ended with every number that of the worst kind; None: some run cannot."""
    days_apart: float | None
    """The same with chips of one kind for each run."""
    won_back: float | None
    """Times as long as apart."""


@dataclass(frozen=True)
class Machine:
    name: str
    chips: int
    """Or, on this machine, devices or workers."""
    shares: tuple[Share, ...]
    """Empty on this machine."""
    days: Number | None
    """Until the last run that can end has ended."""
    utilisation: float
    """Share of chips x days in which a run has a chip in use."""
    meter: Meter | None = None
    mixed: Mixed | None = None


@dataclass(frozen=True)
class Sheet:
    runs: tuple[PlannedRun, ...]
    cluster: Machine


def last(runs: tuple[PlannedRun, ...]) -> Number | None:
    """Days until the last run has ended, of those that end."""
    ends = [run.days.times(1 + run.begins / run.days.value) for run in runs if run.days]
    return max(ends, key=lambda end: end.value, default=None)


def labels(numbers: Mapping[str, Number | None]) -> dict[str, str]:
    """The layer of each that there is."""
    return {key: number.evidence.value for key, number in numbers.items() if number}
