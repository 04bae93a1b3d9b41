"""A comparison: everything that a sweep says, as frozen dataclasses.

The same holds of its parts in `estimates`, `verdicts` and `accounts`. Absent means None: a number that
the design cannot carry (one seed has no population interval) is never filled in. Losses are in nats a
token, of images in the comparison's `loss_unit`; a difference is treatment minus control, so a negative
one is in the treatment's favour; k > 1 is in the treatment's favour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.compare.results.context_types import (
    DivergenceCount,
    ExpertUse,
    FairnessRow,
    ForgettingRow,
    RunState,
    SampleRow,
)
from harness.compare.results.verdict_types import GateResult, Ladder, Rung


@dataclass(frozen=True)
class Deviation:
    """What was decided otherwise after the rule was written down."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Rule:
    """The rule that was applied, as it was written down."""

    hypothesis: str
    control: str
    positive_control: str | None
    domains: tuple[str, ...]
    margin: float
    alpha: float
    stopping: str
    family: tuple[str, ...]
    """Treatments over which Holm's procedure runs."""
    hash: str
    """Of rule.json; empty where there is none."""

    @property
    def by_looks(self) -> bool:
        """Whether a scale may end at a look, so that its numbers must hold under the peeking."""
        return self.stopping != "none"


INPUT = "input_share"
"""Key of `times`: by run, the share of its training time in which batches were read and brought to
its devices."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a sweep says."""

    experiment: str
    verdict: str
    rule: Rule
    fairness: tuple[FairnessRow, ...]
    rungs: tuple[Rung, ...]
    ladder: tuple[Ladder, ...]
    gate: tuple[GateResult, ...] | None
    deviations: tuple[Deviation, ...]
    runs: tuple[RunState, ...]
    divergence: tuple[DivergenceCount, ...]
    forgetting: tuple[ForgettingRow, ...] = ()
    notes: tuple[str, ...] = ()
    loss_unit: str = "nats a token"
    samples: tuple[SampleRow, ...] = ()
    """Of sweeps of images."""
    times: dict[str, Any] = field(default_factory=dict)
    """Wall-clock facts, which no equality of comparisons covers."""
    experts: tuple[ExpertUse, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that stands anywhere, sorted."""
        groups = [*self.rungs, *self.ladder, *self.fairness]
        return tuple(sorted({flag for group in groups for flag in group.flags}))
