"""What a sweep is asked, and by which rule it is judged, as types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING


class Stopping(Enum):
    """When a scale may end before its budget: never, or at a look (a decayed checkpoint of every run)."""

    none = "none"
    looks = "looks"


class Gate(Enum):
    """What a sweep is asked beside the verdict: nothing, or whether a variant is to be promoted."""

    none = "none"
    promote = "promote"


class TuneTarget(Enum):
    """What each variant gets an equal bracket of before the sweep: nothing, or its learning rate."""

    none = "none"
    lr = "lr"


@dataclass
class RuleConfig:
    """Written down and hashed before the first step; never part of a run's identity."""

    hypothesis: str = ""
    control: str = MISSING
    """The variant that the others are compared with."""
    positive_control: str | None = None
    """A variant that is known to be worse: if it is not found so, the sweep could not have found much."""
    domains: list[str] = field(default_factory=list)
    """Held-out domains whose mean loss decides; empty: all."""
    margin: float = 0.01
    """Region of practical equivalence, in ln k."""
    alpha: float = 0.05
    stopping: Stopping = Stopping.none


@dataclass
class GateConfig:
    """What a candidate must win three of four of, and by how much it may lose the fourth."""

    name: Gate = Gate.none
    quality: float = 0.01
    """In ln k."""
    speed: float = 0.05
    """In ln of the ratio of step times."""
    memory: float = 0.05
    """In ln of the ratio of peak memory."""
    stability: float = 0.05
    """In diverged or spiked runs a run."""


@dataclass
class TuneConfig:
    """A sweep of its own under `tune/`: an equal bracket of learning rates for each variant, at the
    smallest scale, on a seed that the test does not use."""

    name: TuneTarget = TuneTarget.none
    points: int = 5
    """Learning rates a variant, `factor` apart, around optimizer.learning_rate."""
    factor: float = 2.0
    seed: int = 1_000_003
