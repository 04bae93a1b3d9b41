"""Typed config nodes of the decision rule, the promotion gate and the learning-rate tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING


class Stopping(Enum):
    """Points at which a scale may stop early: none, or interim looks (decayed checkpoints of all runs)."""

    none = "none"
    looks = "looks"


class Axis(Enum):
    """Resource that decides: tokens (the loss at equal tokens), FLOPs, or device-seconds."""

    tokens = "tokens"
    flops = "flops"
    seconds = "seconds"


class Gate(Enum):
    """Decision beside the verdict: none, or whether to promote a variant."""

    none = "none"
    promote = "promote"


class TuneTarget(Enum):
    """Value that is tuned before the sweep, over an equal bracket per variant: none, or the learning rate."""

    none = "none"
    lr = "lr"


@dataclass
class RuleConfig:
    """Decision rule, written and hashed before the first step; never part of a run's identity."""

    hypothesis: str = ""
    """Sentence that the sweep tests, for the record."""
    control: str = MISSING
    """Variant that the others are compared with; default: the first one of the sweep."""
    positive_control: str | None = None
    """Variant known to be worse, or null. If the sweep does not find it worse, the sweep lacks power."""
    domains: list[str] = field(default_factory=list)
    """Held-out domains whose mean loss decides; empty means all."""
    margin: float = 0.01
    """Half-width of the region of practical equivalence, in ln k."""
    margin_nats: float | None = None
    """Half-width of that region in the loss itself, in its unit; null: `margin` decides, which needs k."""
    alpha: float = 0.05
    """Significance level of the verdicts."""
    stopping: Stopping = Stopping.none
    target: float | None = None
    """Model FLOPs of the run that the sweep decides about; null: ten times those of the largest scale."""
    drift: float | None = None
    """SD by which ln k moves per root e-fold of compute; null: .03, or .15 for a question about the data."""
    drift_df: float = 3.0
    """Degrees of freedom of that knowledge: what the ladder itself shows counts beside them."""
    drift_from: list[str] = field(default_factory=list)
    """Finished sweeps whose ladders tell the drift instead; five ladders of the same kind of question."""
    bet_margin: float = 0.05
    """Half-width in ln k at the target within which it does not matter which variant is taken."""
    match: Axis = Axis.tokens
    """Resource of which the two runs of a pair get equal amounts."""
    axis: Axis = Axis.tokens
    """Resource that a variant must save to count as better."""


@dataclass
class GateConfig:
    """Promotion gate: a candidate wins three of four criteria and loses the fourth by at most its limit."""

    name: Gate = Gate.none
    quality: float = 0.01
    """Largest loss of quality, in ln k."""
    speed: float = 0.05
    """Largest loss of speed, in ln of the ratio of step times."""
    memory: float = 0.05
    """Largest loss of memory, in ln of the ratio of peak bytes."""
    stability: float = 0.05
    """Largest loss of stability, in the share of runs that diverged or spiked."""


@dataclass
class TuneConfig:
    """Sweep under `tune/`: the same bracket of learning rates for each variant, at the smallest scale."""

    name: TuneTarget = TuneTarget.none
    points: int = 5
    """Number of learning rates per variant, around optimizer.learning_rate."""
    factor: float = 2.0
    """Ratio of neighbouring learning rates."""
    seed: int = 1_000_003
    """Seed of the tuning runs; it must not be one of the sweep's seeds."""
