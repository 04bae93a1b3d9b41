"""Result types of a verdict: at one scale (rung), over all scales (ladder), and of the promotion gate.

A ladder has two answers. HERE: is the treatment better at the largest scale trained? BET: which variant
should a larger run take? The multiplier pooled over scales, its trend and its projection only describe.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.compare.stats.across_scales import AcrossScales
from harness.compare.stats.bet import Bet, BetDecision, Drift
from harness.compare.stats.estimates import Effect, Multiplier, Projection, Trend
from harness.compare.stats.speed_up import TimingRatio, multiplier_per_flop
from harness.compare.stats.superiority import Superiority
from harness.config.schema.decision import Axis


class Decision(Enum):
    """Verdict on a treatment (B) against the control (A)."""

    B_BETTER = "B_BETTER"
    A_BETTER = "A_BETTER"
    EQUIVALENT = "EQUIVALENT"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


@dataclass(frozen=True)
class Pair:
    """End-of-run losses of two runs of one seed, and their difference."""

    seed: int
    control: float
    treatment: float
    delta: float


@dataclass(frozen=True)
class DomainEffect:
    """Loss difference on one held-out domain."""

    domain: str
    control: float | None
    treatment: float | None
    delta: Effect


@dataclass(frozen=True)
class Look:
    """Interim look at a decayed checkpoint that both variants have, at `share` of the token budget."""

    share: float
    tokens: int
    delta: Effect
    alpha: float | None
    """Error rate that this look may spend; None if looks were not declared (then it decides nothing)."""
    outcome: str
    """continue | efficacy | futility | shown"""


@dataclass(frozen=True)
class IsoRow:
    """Difference at an equal amount of one axis. `axis`: steps | tokens | flops | device_seconds."""

    axis: str
    value: float
    delta: Effect


@dataclass(frozen=True)
class Rung:
    """Verdict on one treatment at one scale."""

    scale: str
    variant: str
    control: str
    n: int
    paired: bool
    tokens: int | None
    flops: float | None
    """Model FLOPs of one control run: the axis of the ladder."""
    control_loss: float | None
    treatment_loss: float | None
    delta: Effect
    k: Multiplier | None
    correlation: float | None
    method: str
    df: float | None
    p: float | None
    p_holm: float | None
    sign_flip: float | None
    smallest_p: float | None
    look: float
    """Share of the token budget at which the losses were taken (1.0: the end)."""
    looks: tuple[Look, ...]
    pairs: tuple[Pair, ...]
    domains: tuple[DomainEffect, ...]
    without_outliers: Effect | None
    flags: tuple[str, ...]
    decision: Decision
    reason: str
    settle: str
    """Next step that would decide it: a number of further seeds, or the next scale."""
    more_seeds: int | None
    """Number of further seeds that would halve the interval."""
    iso: tuple[IsoRow, ...] = ()
    step_time: TimingRatio | None = None
    """Step time of the treatment over the control's, timed apart; None if this scale was not timed."""
    speed_up: Multiplier | None = None
    """k at equal device-seconds (s); None without k or without `step_time`."""
    probability_b_better: Superiority | None = None
    """Probability that a run of the treatment ends below one of the control; None below two seeds."""


class EquivalenceUnit(Enum):
    """Quantity that is tested for equivalence."""

    log_k = "ln k"
    loss = "the loss"


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (TOST) of |ln k| < margin, or of a loss difference."""

    margin: float
    p: float | None
    passed: bool
    unit: EquivalenceUnit = EquivalenceUnit.log_k


@dataclass(frozen=True)
class LargestScale:
    """Numbers of the largest scale trained, tested by itself. Holm's procedure corrects p over the
    treatments: smaller scales are no hypotheses of this question."""

    scale: str
    delta: Effect
    k: Multiplier | None
    p: float | None
    p_holm: float | None
    holm_low: float | None
    """Lower end of the interval of ln k on the deciding axis, at the level that Holm's procedure gives this
    variant."""
    holm_high: float | None
    equivalence: Equivalence | None
    axis: Axis = Axis.tokens
    """Resource that decides: `p`, the interval and the equivalence are those of k at equal amounts of it."""
    holm_level: float = 0.05
    """Error rate at which Holm's procedure tests this variant."""
    step_time: TimingRatio | None = None
    speed_up: Multiplier | None = None
    """k at equal device-seconds (s); None if the variants were not timed at this scale."""

    @property
    def multiplier(self) -> Multiplier | None:
        """k on the deciding axis."""
        return on_axis(self.axis, self.k, self.speed_up)


def on_axis(axis: Axis, k: Multiplier | None, speed_up: Multiplier | None) -> Multiplier | None:
    """Return the multiplier at equal amounts of a resource; None if it is not known."""
    if axis is Axis.seconds:
        return speed_up
    return multiplier_per_flop(k) if k and axis is Axis.flops else k


@dataclass(frozen=True)
class BetVerdict:
    """Variant to take for a run at the target, from ln k at the largest scale and its drift up to there."""

    decision: BetDecision
    estimate: Bet
    p_holm: float | None
    """One-sided p of the side that the estimate favours, corrected over the treatments."""
    lean: str
    """Variant that the sign at the largest scale favours, whatever the decision; empty if it favours none."""
    drift: Drift
    """Drift that the rule declares."""
    reason: str
    settle: str
    """Next step that would decide it; empty if it is decided."""
    flags: tuple[str, ...] = ()
    axis: Axis = Axis.tokens
    """Resource at equal amounts of which k is given."""


@dataclass(frozen=True)
class Ladder:
    """Verdict on one treatment: HERE as `decision`, BET as `bet`, and what describes all its scales."""

    variant: str
    control: str
    positive_control: bool
    scales: tuple[str, ...]
    largest_scale: LargestScale | None
    """Numbers of the largest scale that has a result; None if none has."""
    bet: BetVerdict | None
    """None if the comparison is invalid, or the largest scale has no multiplier or no FLOPs."""
    k: Multiplier | None
    """Multiplier pooled over scales; None also if the scales have none in common (HETEROGENEOUS)."""
    heterogeneity_p: float | None
    """p of an equal ln k at all scales, by Welch's F-test."""
    trend: Trend | None
    projection: Projection | None
    sign_flip: float | None
    smallest_p: float | None
    k_compute: Multiplier | None
    """Pooled compute multiplier along the ladder, shown beside `k` if the control's curve can be fitted."""
    flags: tuple[str, ...]
    decision: Decision
    reason: str
    settle: str
    across_scales: AcrossScales | None = None
    """Mean ln k over scales of one seed each, which are then the unit of replication; decides nothing."""


@dataclass(frozen=True)
class Criterion:
    """Criterion of the gate: quality, speed, memory or stability."""

    name: str
    passed: bool | None
    """Result; None if not measured."""
    value: float | None
    margin: float
    detail: str


@dataclass(frozen=True)
class GateResult:
    """Promotion decision on one variant."""

    variant: str
    promote: bool
    won: int
    criteria: tuple[Criterion, ...]
    reason: str
