"""A number with its interval: an effect in loss, and the multiplier of compute that it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Estimand(Enum):
    """What an interval speaks about: seeds that could have been drawn, or these trajectories only."""

    population = "population"
    trajectory_only = "trajectory_only"


class SlopeAxis(Enum):
    """The one axis along which the control's slope was taken."""

    k_tokens = "k_tokens"
    """At fixed size, between a cooldown branch and the full run (SLOPE_LOCAL)."""
    k_compute = "k_compute"
    """Along the ladder, from a curve through the control's end-of-run means."""


@dataclass(frozen=True)
class Effect:
    """A mean difference with its interval; `p` is two-sided. One seed: only mean and n."""

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    df: float | None
    method: str
    flags: tuple[str, ...] = ()
    estimand: Estimand = Estimand.population
    se: float | None = None
    level: float = 0.95


@dataclass(frozen=True)
class Multiplier:
    """k: how much more of the resource the control would need to reach the treatment's loss."""

    estimand: SlopeAxis
    k: float | None
    low: float | None
    high: float | None
    log_k: float | None
    log_se: float | None
    log_low: float | None
    log_high: float | None
    p: float | None
    df: float | None
    n: int
    slope: float | None
    """-dL/dln(resource) of the control, nats an e-fold; None for a pooled multiplier."""
    slope_se: float | None = None
    exponent: float | None = None
    """Exponent of the control's excess loss: fitted along the ladder, assumed along the horizon."""
    k_per_flop: float | None = None
    """k over the ratio of model FLOPs a token; only where that ratio is further than 1 % from 1."""
    shared_se: float = 0.0
    """The part of `log_se` that all scales have in common (how the control's curve bends), which
    pooling does not average away."""
    flags: tuple[str, ...] = ()
    sampling: Estimand = Estimand.population


class Direction(Enum):
    """What happens to an advantage as scale grows."""

    SHRINKS = "SHRINKS"
    GROWS = "GROWS"
    HOLDS = "HOLDS"
    UNRESOLVED = "UNRESOLVED"


@dataclass(frozen=True)
class Trend:
    """gamma: slope of ln k on ln compute, oriented so that negative means the advantage shrinks."""

    gamma: float
    low: float
    high: float
    p: float
    df: float
    scales: int
    direction: Direction
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Projection:
    """ln k one decade beyond the largest scale, with a prediction interval. Always EXTRAPOLATION."""

    flops: float
    k: float
    low: float
    high: float
    log_k: float
    log_low: float
    log_high: float
    crossing_flops: float | None
    """Where the line crosses k = 1, if that is within one decade of the data."""
    flags: tuple[str, ...] = ("EXTRAPOLATION",)
