"""What is said of a treatment: at one scale, over the ladder of them, and by the gate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.compare.stats.estimates import Effect, Multiplier, Projection, Trend


class Decision(Enum):
    B_BETTER = "B_BETTER"
    A_BETTER = "A_BETTER"
    EQUIVALENT = "EQUIVALENT"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


@dataclass(frozen=True)
class Pair:
    """Two runs of a block: end-of-run losses and their difference."""

    seed: int
    control: float
    treatment: float
    delta: float


@dataclass(frozen=True)
class DomainEffect:
    domain: str
    control: float | None
    treatment: float | None
    delta: Effect


@dataclass(frozen=True)
class Look:
    """One decayed checkpoint of both variants. `share`: of the token budget."""

    share: float
    tokens: int
    delta: Effect
    alpha: float | None
    """What this look may spend; None where looks were not declared (then nothing is decided here)."""
    outcome: str
    """continue | efficacy | futility | shown"""


@dataclass(frozen=True)
class IsoRow:
    """The pair at an equal amount of one axis. `axis`: steps | tokens | flops | device_seconds."""

    axis: str
    value: float
    delta: Effect


@dataclass(frozen=True)
class Rung:
    """The verdict of one treatment at one scale."""

    scale: str
    variant: str
    control: str
    n: int
    paired: bool
    tokens: int | None
    flops: float | None
    """Model FLOPs of one control run: the ladder's axis."""
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
    """Share of the token budget at which the outcome was read (1.0: the end)."""
    looks: tuple[Look, ...]
    pairs: tuple[Pair, ...]
    domains: tuple[DomainEffect, ...]
    without_outliers: Effect | None
    flags: tuple[str, ...]
    decision: Decision
    reason: str
    settle: str
    """What would settle it: so many more seeds, or the next scale."""
    more_seeds: int | None
    """Seeds to add so that the interval is half as wide."""
    iso: tuple[IsoRow, ...] = ()


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests that |ln k| < margin."""

    margin: float
    p: float | None
    passed: bool


@dataclass(frozen=True)
class Ladder:
    """The verdict of one treatment over all scales."""

    variant: str
    control: str
    positive_control: bool
    scales: tuple[str, ...]
    k: Multiplier | None
    p: float | None
    p_holm: float | None
    holm_low: float | None
    """Interval of ln k at the level that Holm's procedure left for this variant."""
    holm_high: float | None
    trend: Trend | None
    projection: Projection | None
    sign_flip: float | None
    smallest_p: float | None
    equivalence: Equivalence | None
    k_compute: Multiplier | None
    """The pooled multiplier along the ladder, shown beside `k` where the control's curve can be fitted."""
    flags: tuple[str, ...]
    decision: Decision
    reason: str
    settle: str


@dataclass(frozen=True)
class Criterion:
    """One of the four of the gate: quality, speed, memory, stability."""

    name: str
    passed: bool | None
    """None: not measured."""
    value: float | None
    margin: float
    detail: str


@dataclass(frozen=True)
class GateResult:
    variant: str
    promote: bool
    won: int
    criteria: tuple[Criterion, ...]
    reason: str
