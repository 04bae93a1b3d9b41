"""Plan of a sweep on any machine: one entry per run, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.config.schema.run import Config
from harness.estimate.layouts import Layout
from harness.plan.allocation.reliability import RecoveryOption
from harness.plan.predict import EvidenceKind, PlanEstimate
from harness.records.run.provenance import Facts
from harness.records.sweep.plan_file import ChipShare, RunOnChips

EXACT_COUNTS: dict[str, str] = dict.fromkeys(
    ("parameters", "active_parameters", "flops_per_token"), EvidenceKind.closed_form.value
)
"""Evidence of the counts that are exact on every machine, by key of PlannedRun."""


class DescribedRun(Protocol):
    """A run of a sweep with its config and the facts that `harness.worker.describe` counted."""

    @property
    def name(self) -> str:
        """Name of the run in its sweep."""
        ...

    @property
    def config(self) -> Config:
        """Complete config of the run."""
        ...

    @property
    def facts(self) -> Facts:
        """Facts of the run that hold on every machine."""
        ...


@dataclass(frozen=True)
class Alternative:
    """A layout that the search rejected. Its seconds are calibrated."""

    layout: Layout
    step_seconds: float
    bytes: float
    """Bytes of the fullest device."""
    why: str
    """Reason why another layout was chosen."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun(RunOnChips):
    """Run of a plan. Counts are plain numbers; predictions have their interval and evidence."""

    parameters: int
    """Number of all parameters, with embedding and head."""
    active_parameters: int
    """Number of parameters that one token passes through, without embedding and head."""
    flops_per_token: float
    """Model FLOPs of one trained token, causal."""
    tokens: int | None
    memory: dict[str, PlanEstimate] = field(default_factory=dict)
    days: PlanEstimate | None = None
    batch: int
    """Sequences of a step, which the layout splits."""
    layout: Layout | None = None
    fixed: tuple[str, ...] = ()
    """Parts of the layout that the config had chosen, such as `mesh.tensor=2`."""
    alternatives: tuple[Alternative, ...] = ()
    """Next best layouts, then faster ones that do not fit and the best without each axis; empty where a
    sibling's layout was taken."""
    step_seconds: PlanEstimate | None = None
    mfu: PlanEstimate | None = None
    """Model FLOPs utilisation of the 16-bit peak; None: the peak is not known."""
    gigawatt_hours: PlanEstimate | None = None
    """Energy at the meter of all chips that the run has."""
    mtbf_hours: float | None = None
    """Mean hours between interruptions."""
    interruptions: float | None = None
    """Expected number of interruptions until the end."""
    recovery: tuple[RecoveryOption, ...] = ()
    """Recovery options, simplest first; `days` counts with the one whose goodput is highest."""
    notes: tuple[str, ...] = ()
    evidence: dict[str, str] = field(default_factory=dict)
    """Evidence of each number, by its key in this entry."""


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
    """A machine with the chips that runs have, its power, and the days that the sweep takes."""

    name: str
    chips: int
    """Number of chips; on this machine, number of devices or workers."""
    shares: tuple[ChipShare, ...]
    """Chips by kind; empty on this machine."""
    days: PlanEstimate | None
    """Days until the last run that can end has ended."""
    utilisation: float
    """Share of chips x days in which a run uses a chip."""
    meter: PowerUse | None = None
    mixed: MixedChips | None = None


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep on one machine. `harness plan --json` prints it."""

    runs: tuple[PlannedRun, ...]
    cluster: PlannedMachine


def last_end(runs: tuple[PlannedRun, ...]) -> PlanEstimate | None:
    """Return the days until the last run has ended, of the runs that end."""
    ends = [run.days.scaled(1 + run.begins / run.days.value) for run in runs if run.days]
    return max(ends, key=lambda end: end.value, default=None)


def evidence_labels(numbers: Mapping[str, PlanEstimate | None]) -> dict[str, str]:
    """Return the evidence of each number that is known, by its key."""
    return {key: number.evidence.value for key, number in numbers.items() if number}
