"""Estimates with intervals: effects in loss, compute multipliers, trends over scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Estimand(Enum):
    """Scope of an interval: all seeds that could be drawn, or only the trajectories that ran."""

    population = "population"
    trajectory_only = "trajectory_only"


class SlopeAxis(Enum):
    """Axis of the control's slope."""

    k_tokens = "k_tokens"
    """Tokens at fixed model size, from a cooldown branch to the full run (SLOPE_LOCAL)."""
    k_compute = "k_compute"
    """Compute along the ladder, from a curve through the control's end-of-run means."""
    k_flops = "k_flops"
    """FLOPs at fixed model size: the slope in tokens, and a difference at equal FLOPs (rule.match=flops)."""
    k_seconds = "k_seconds"
    """Device-seconds at fixed model size, from a difference at equal device-seconds (rule.match=seconds)."""


@dataclass(frozen=True)
class Effect:
    """Mean loss difference with its interval and two-sided p. With one seed only `mean` and `n` are set."""

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
    """Resource multiplier k: the control needs k times as much to reach the treatment's loss."""

    estimand: SlopeAxis
    k: float | None = None
    low: float | None = None
    high: float | None = None
    log_k: float | None = None
    log_se: float | None = None
    log_low: float | None = None
    log_high: float | None = None
    p: float | None = None
    df: float | None = None
    n: int = 0
    slope: float | None = None
    """-dL/dln(resource) of the control, in nats per e-fold; None for a pooled multiplier."""
    slope_se: float | None = None
    exponent: float | None = None
    """Exponent of the control's excess loss: fitted along the ladder, assumed along the horizon."""
    k_per_flop: float | None = None
    """k divided by the ratio of model FLOPs per token; None if that ratio is within 1 % of 1."""
    shared_se: float = 0.0
    """Part of `log_se` that comes from the control's slope and is correlated between scales."""
    shared_errors: tuple[float, ...] = ()
    """The same by independent source, signed. A source stands at the same place at every scale."""
    shared_df: float = math.inf
    """Degrees of freedom of `shared_errors`."""
    own_df: float | None = None
    """Degrees of freedom of the rest of `log_se`; None if they are `df`."""
    flags: tuple[str, ...] = ()
    sampling: Estimand = Estimand.population


class Direction(Enum):
    """Direction of an advantage as scale grows."""

    SHRINKS = "SHRINKS"
    GROWS = "GROWS"
    HOLDS = "HOLDS"
    UNRESOLVED = "UNRESOLVED"


@dataclass(frozen=True)
class Trend:
    """Slope gamma of ln k on ln compute. Its sign is such that a negative gamma is a shrinking advantage."""

    gamma: float
    low: float
    high: float
    p: float
    df: float
    scales: int
    direction: Direction
    slope: float
    """Change of ln k per e-fold of compute, whatever it favours: gamma with its own sign."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Projection:
    """Projected ln k one decade of compute beyond the largest scale. It always has the flag EXTRAPOLATION."""

    flops: float
    k: float
    low: float
    high: float
    log_k: float
    log_low: float
    log_high: float
    crossing_flops: float | None
    """FLOPs at which the line crosses k = 1; None if more than a decade from the data."""
    flags: tuple[str, ...] = ("EXTRAPOLATION",)
