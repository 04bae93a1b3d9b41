"""Result types of a checkpoint comparison; `distances` computes them.

A difference is b minus a. Each checkpoint is one trained network, not a population of seeds: every interval
here is over held-out examples and `trajectory_only`, and none has a p-value.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.stats.estimates import Effect


@dataclass(frozen=True)
class CheckpointRef:
    """Name and size of a compared checkpoint."""

    name: str
    """Path within its sweep, and step: `xs/mha/seed0@122`."""
    path: str
    step: int
    tokens: int
    parameters: int
    code: str
    """Hash of the code that trained it."""


@dataclass(frozen=True)
class Distance:
    """Distance of the weights of b from those of a."""

    parameters: int
    norm_a: float
    norm_b: float
    relative: float | None
    """||b - a|| / ||a||; None where a is zero and b is not."""
    cosine: float | None
    """Cosine similarity; None where one of them is zero."""
    equal: bool
    """Bitwise equality."""


@dataclass(frozen=True)
class WeightRow:
    """Distance of one parameter array."""

    path: str
    shape: tuple[int, ...]
    distance: Distance


@dataclass(frozen=True)
class ParamGroupRow:
    """Distance of one parameter pooled over all its layers, `layers.*.attention.query`."""

    kind: str
    layers: int
    distance: Distance
    low: float | None
    """Smallest and largest relative distance of a layer."""
    high: float | None


@dataclass(frozen=True)
class UnmatchedParam:
    """Parameter path without a counterpart (that shape is None) or with another shape on the other side."""

    path: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None


@dataclass(frozen=True)
class WeightDiff:
    """Weight distances by canonical path; `total` and `kinds` pool the parameters that match in shape."""

    total: Distance
    kinds: tuple[ParamGroupRow, ...]
    rows: tuple[WeightRow, ...]
    one_sided: tuple[UnmatchedParam, ...]


@dataclass(frozen=True)
class PredictionRow:
    """Next-token distributions on a fixed set of probe tokens, exact for these tokens. Means per token."""

    domain: str
    sequences: int
    tokens: int
    kl_ab: float
    """KL(a || b), nats."""
    kl_ba: float
    agreement: float
    """Share of tokens for which both rank the same next token first."""


@dataclass(frozen=True)
class LossRow:
    """Mean loss over held-out sequences, nats per token, and its paired difference."""

    domain: str
    examples: int
    loss_a: float
    loss_b: float
    delta: Effect
    better: float
    """Share of the examples on which b has the lower loss."""
    deltas: tuple[float, ...]
    """Difference of each example; empty in the row over all domains."""


@dataclass(frozen=True)
class PredictionDiff:
    """Predictions of both checkpoints for the same tokens."""

    probe: tuple[PredictionRow, ...] = ()
    losses: tuple[LossRow, ...] = ()
    overall: LossRow | None = None
    """Mean over domains."""
    refused: str = ""
    """Sentence that says why the predictions cannot be compared; empty if they were."""


@dataclass(frozen=True)
class DivergencePoint:
    """Steps at which two runs first differ, among the `compared` common steps; None: they never differ."""

    compared: int
    first: int | None
    last: int | None
    bitwise: int | None
    """First step at which they are not bitwise equal."""
    relative: int | None
    """First step with a relative difference above `distances.TOLERANCE`."""


@dataclass(frozen=True)
class StepDistance:
    """Weight distance at one step."""

    step: int
    distance: Distance


@dataclass(frozen=True)
class Divergence:
    """Divergence of two runs from their start."""

    losses: DivergencePoint
    weights: DivergencePoint
    """Divergence of the common weights, at the checkpoints of equal step."""
    checkpoints: tuple[StepDistance, ...]
    same_examples: bool | None
    """True if both had read the same examples by their last common checkpoint; None without one."""


@dataclass(frozen=True)
class CheckpointDiff:
    """Comparison of two checkpoints."""

    a: CheckpointRef
    b: CheckpointRef
    weights: WeightDiff
    function: PredictionDiff
    divergence: Divergence | None
    """None for two steps of one run."""
    along: tuple[StepDistance, ...]
    """Distance from the earlier checkpoint at each kept step up to the later, for two steps of one run."""
    notes: tuple[str, ...] = ()
