"""Comparison: the complete result of a sweep, as frozen dataclasses.

These conventions also hold for `estimates`, `verdict_types` and `context_types`. An absent number is None: a
number that the design cannot support (one seed has no population interval) is never filled in. Losses are in
the comparison's `loss_unit`, for text nats per token. A difference is treatment minus control, so negative
favours the treatment; k > 1 favours the treatment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.compare.results.context_types import (
    DivergenceCount,
    ExpertUse,
    FairnessRow,
    ForgettingRow,
    OwnMetricRow,
    RunState,
    SampleRow,
)
from harness.compare.results.verdict_types import GateResult, Ladder, Rung
from harness.compare.stats.observed_power import ObservedPower
from harness.config.schema.decision import Axis


@dataclass(frozen=True)
class Deviation:
    """Deviation from the rule that was fixed before the runs."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Rule:
    """Decision rule that was applied, as it was written down."""

    hypothesis: str
    control: str
    positive_control: str | None
    domains: tuple[str, ...]
    margin: float
    alpha: float
    stopping: str
    family: tuple[str, ...]
    """Treatments that Holm's procedure corrects for."""
    hash: str
    """Hash of rule.json; empty if there is none."""
    target: float | None = None
    """Model FLOPs of the run that is decided about; None: ten times those of the largest scale."""
    drift: float | None = None
    """SD of ln k per root e-fold of compute between scales; None: the default of the kind of question."""
    drift_df: float = 3.0
    bet_margin: float = 0.05
    match: Axis = Axis.tokens
    """Resource of which the two runs of a pair get equal amounts."""
    axis: Axis = Axis.tokens
    """Resource that a variant must save to count as better."""
    margin_nats: float | None = None
    """Half-width of the region of practical equivalence in the loss itself; None: `margin`, in ln k."""

    @property
    def uses_looks(self) -> bool:
        """True if a scale may end at an interim look, so that its p-values need sequential correction."""
        return self.stopping != "none"


INPUT_SHARE = "input_share"
"""Key of `times`: for each run, the share of training time spent reading and transferring batches."""
STEP_SECONDS = "step_seconds"
"""Key of `times`, if the variants were timed: seconds per step by variant, each timed alone."""


@dataclass(frozen=True)
class Comparison:
    """Complete result of a sweep."""

    experiment: str
    verdict: str
    """Verdict in words, one line per treatment."""
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
    """Sample quality; empty for text."""
    times: dict[str, Any] = field(default_factory=dict)
    """Wall-clock measurements, which differ between otherwise equal comparisons."""
    experts: tuple[ExpertUse, ...] = ()
    metrics: tuple[OwnMetricRow, ...] = ()
    """Metrics of the runs' own at their end."""
    power: tuple[ObservedPower, ...] = ()
    """Noise of each scale against the noise that the design counted on; empty below two pairs."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of all rungs, ladders and fairness rows, sorted."""
        groups = [*self.rungs, *self.ladder, *self.fairness]
        return tuple(sorted({flag for group in groups for flag in group.flags}))
