"""What two checkpoints say of each other; `distances` finds it.

A difference is b minus a. Both are trained networks, not populations of seeds: every interval
here is over held-out examples and `trajectory_only`, and none has a p.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.stats.estimates import Effect


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints."""

    name: str
    """Path within its sweep, and step: `xs/mha/seed0@122`."""
    path: str
    step: int
    tokens: int
    parameters: int
    code: str
    """Hash of the code that it was trained with."""


@dataclass(frozen=True)
class Distance:
    """How far weights of b are from those of a."""

    parameters: int
    norm_a: float
    norm_b: float
    relative: float | None
    """||b - a|| / ||a||; None where a is zero and b is not."""
    cosine: float | None
    """None where one of them is zero."""
    equal: bool
    """Bitwise."""


@dataclass(frozen=True)
class WeightRow:
    path: str
    shape: tuple[int, ...]
    distance: Distance


@dataclass(frozen=True)
class KindRow:
    """One parameter over all its layers, `layers.*.attention.query`."""

    kind: str
    layers: int
    distance: Distance
    low: float | None
    """Smallest and largest relative distance of a layer."""
    high: float | None


@dataclass(frozen=True)
class OneSided:
    """A path that cannot be compared: None where a side has none, else two shapes that differ."""

    path: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None


@dataclass(frozen=True)
class Weights:
    """By canonical path; `total` and `kinds` pool what both sides have in the same shape."""

    total: Distance
    kinds: tuple[KindRow, ...]
    rows: tuple[WeightRow, ...]
    one_sided: tuple[OneSided, ...]


@dataclass(frozen=True)
class FunctionRow:
    """Next-token distributions on a frozen probe: exact for these tokens. Means a token."""

    domain: str
    sequences: int
    tokens: int
    kl_ab: float
    """KL(a || b), nats."""
    kl_ba: float
    agreement: float
    """Share of tokens for which both put the same next token first."""


@dataclass(frozen=True)
class LossRow:
    """Mean loss of each held-out sequence, nats a token, and its paired difference."""

    domain: str
    examples: int
    loss_a: float
    loss_b: float
    delta: Effect
    better: float
    """Share of the examples on which b has the lower loss."""
    deltas: tuple[float, ...]
    """By example; empty in the row over all domains."""


@dataclass(frozen=True)
class Function:
    """What both say to the same tokens."""

    probe: tuple[FunctionRow, ...] = ()
    losses: tuple[LossRow, ...] = ()
    overall: LossRow | None = None
    """The mean over domains."""
    refused: str = ""
    """Why the two cannot be asked the same, in one sentence; empty if they were."""


@dataclass(frozen=True)
class Onset:
    """Where two runs part, among the steps that both have; None: nowhere."""

    compared: int
    first: int | None
    last: int | None
    bitwise: int | None
    """First step at which they differ at all."""
    relative: int | None
    """First step at which they differ by more than `distances.TOLERANCE` of their size."""


@dataclass(frozen=True)
class StepDistance:
    step: int
    distance: Distance


@dataclass(frozen=True)
class Divergence:
    """Two runs beside each other from their start."""

    losses: Onset
    weights: Onset
    """Of the weights that both have, at the checkpoints of equal step."""
    checkpoints: tuple[StepDistance, ...]
    same_examples: bool | None
    """Whether both had read the same examples by their last common checkpoint; None without one."""


@dataclass(frozen=True)
class CheckpointDiff:
    a: Side
    b: Side
    weights: Weights
    function: Function
    divergence: Divergence | None
    """None for two steps of one run."""
    along: tuple[StepDistance, ...]
    """For two steps of one run: the distance from the earlier, at each checkpoint kept up to the later."""
    notes: tuple[str, ...] = ()
