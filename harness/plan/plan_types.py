"""What `harness plan` says of a sweep, whatever machine it is for: one entry a run, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.config.schema.run import Config
from harness.plan.cluster.reliability import RecoveryOption
from harness.plan.cost_model.layouts import Layout
from harness.plan.predict import EvidenceKind, PlanEstimate
from harness.records.run.provenance import Facts
from harness.records.sweep.plan_file import ChipShare, RunOnChips

EXACT_COUNTS: dict[str, str] = dict.fromkeys(
    ("parameters", "active_parameters", "flops_per_token"), EvidenceKind.closed_form.value
)
"""What is exact on any machine."""


class DescribedRun(Protocol):
    """A run of a sweep that was described."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> Facts: ...


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
class PlannedRun(RunOnChips):
    """One run of a plan. Counts are plain numbers; predictions have their interval and evidence."""

    parameters: int
    """All, with embedding and head."""
    active_parameters: int
    """Those that one token passes through, without embedding and head."""
    flops_per_token: float
    """Model FLOPs of one trained token, causal."""
    tokens: int | None
    memory: dict[str, PlanEstimate] = field(default_factory=dict)
    days: PlanEstimate | None = None
    layout: Layout | None = None
    alternatives: tuple[Alternative, ...] = ()
    """The next best layouts, then those that would be faster and do not fit, and the best without each axis;
    empty where a sibling's layout was taken."""
    step_seconds: PlanEstimate | None = None
    mfu: PlanEstimate | None = None
    """Of the 16-bit peak; None: the peak is not known."""
    gigawatt_hours: PlanEstimate | None = None
    """At the meter, of all its chips."""
    mtbf_hours: float | None = None
    """Mean between interruptions."""
    interruptions: float | None = None
    """Expected until its end."""
    recovery: tuple[RecoveryOption, ...] = ()
    """Options from the simplest on; `days` counts with the one whose goodput is highest."""
    notes: tuple[str, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    """The layer that each number comes from, by its key here."""


@dataclass(frozen=True)
class PowerUse:
    """Megawatts of chips under load at the meter, with hosts, switches and cooling."""

    machine: float
    """Megawatts of every chip."""
    runs: float
    """Megawatts of the chips that runs have."""
    site: float | None
    """Megawatts that the site can supply; None: not known."""
    possible: bool
    """True if the site can feed the chips of all runs at once, or its limit is not known."""


@dataclass(frozen=True)
class MixedChips:
    """Cost of one job over all kinds of chips, and the gain from one kind of chips per run."""

    efficiency: float
    """Speed of the slowest kind over the mean of all chips, in matrix products alone."""
    days: float | None
    """Days until the last run ends if every number is that of the worst kind; None: some run never ends."""
    days_apart: float | None
    """Days until the last run ends with chips of one kind for each run; None: some run never ends."""
    won_back: float | None
    """`days` over `days_apart`."""


@dataclass(frozen=True)
class PlannedMachine:
    name: str
    chips: int
    """Or, on this machine, devices or workers."""
    shares: tuple[ChipShare, ...]
    """Empty on this machine."""
    days: PlanEstimate | None
    """Until the last run that can end has ended."""
    utilisation: float
    """Share of chips x days in which a run has a chip in use."""
    meter: PowerUse | None = None
    mixed: MixedChips | None = None


@dataclass(frozen=True)
class SweepPlan:
    runs: tuple[PlannedRun, ...]
    cluster: PlannedMachine


def last_end(runs: tuple[PlannedRun, ...]) -> PlanEstimate | None:
    """Days until the last run has ended, of those that end."""
    ends = [run.days.scaled(1 + run.begins / run.days.value) for run in runs if run.days]
    return max(ends, key=lambda end: end.value, default=None)


def evidence_labels(numbers: Mapping[str, PlanEstimate | None]) -> dict[str, str]:
    """The layer of each that there is."""
    return {key: number.evidence.value for key, number in numbers.items() if number}
