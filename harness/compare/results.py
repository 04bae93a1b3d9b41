"""What a comparison says, as frozen dataclasses, and as plain data that is equal for equal inputs.

Absent means None: a number that the design cannot carry (one seed has no population interval)
is never filled in. Losses are in nats a token, of images in the comparison's `loss_unit`; a difference is
treatment minus control, so a negative one is in the treatment's favour; k > 1 is in the treatment's favour.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Estimand(Enum):
    """What an interval speaks about: seeds that could have been drawn, or these trajectories only."""

    population = "population"
    trajectory_only = "trajectory_only"


class Slope(Enum):
    """The one axis along which the control's slope was taken."""

    k_tokens = "k_tokens"
    """At fixed size, between a cooldown branch and the full run (SLOPE_LOCAL)."""
    k_compute = "k_compute"
    """Along the ladder, from a curve through the control's end-of-run means."""


class Decision(Enum):
    B_BETTER = "B_BETTER"
    A_BETTER = "A_BETTER"
    EQUIVALENT = "EQUIVALENT"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


class Direction(Enum):
    """What happens to an advantage as scale grows."""

    SHRINKS = "SHRINKS"
    GROWS = "GROWS"
    HOLDS = "HOLDS"
    UNRESOLVED = "UNRESOLVED"


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

    estimand: Slope
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
class FairnessRow:
    """The resources of one variant at one scale, beside the control's."""

    scale: str
    variant: str
    control: bool
    seeds: int
    parameters: int
    non_embedding: int
    flops_per_token: float
    executed_flops_per_token: float
    parameters_ratio: float | None
    """Non-embedding parameters over the control's."""
    flops_ratio: float | None
    tokens: int
    steps: int
    schedule: str
    horizon: int
    tokenizer: str
    data: str
    """Data fingerprint."""
    evaluation: str
    """Fingerprint of the held-out tokens."""
    learning_rate: float | None
    tuning: str
    shared: float | None
    """Share of this variant's parameters that the control has by the same path and shape."""
    code: str
    touches: tuple[str, ...]
    flags: tuple[str, ...] = ()
    curve: tuple[tuple[float, float | None], ...] = ()
    """(learning rate, end-of-run loss) of each rate that was tried; None where the run diverged."""
    mix: str = ""
    """Share of each source; empty where a record does not say."""
    shared_examples: float | None = None
    """Share of the examples of a run that the control's run of its seed reads too, at whatever step; None
    for the control, and where the two read the same, or read texts that are cut in other ways."""
    parting: int | None = None
    """First step at which the two runs read other examples; None where `shared_examples` is."""
    base: str = ""
    """The checkpoint that the runs start from, with a * for their scale and seed; empty for none."""
    trainable: int = 0
    """Parameters that learn, where there is a base."""
    active_parameters: int = 0
    """Non-embedding parameters that one token passes through; 0 where a record does not say."""


@dataclass(frozen=True)
class ForgettingRow:
    """A domain that a fine-tuned variant does not train on: its loss before the first step and at the end."""

    scale: str
    variant: str
    control: bool
    domain: str
    start: float
    """Mean over seeds, as `end`."""
    end: float
    change: Effect
    """End minus start; above zero is forgotten."""
    delta: Effect | None
    """This change minus the control's, paired by seed; None for the control."""


@dataclass(frozen=True)
class RunState:
    """What is known of one run. `outcome`: its end-of-run loss, None if it has none."""

    scale: str
    variant: str
    seed: int
    state: str
    step: int
    steps: int
    outcome: float | None
    problem: str
    """One sentence where the run cannot be used as it is; empty otherwise."""
    path: str
    """Relative to the sweep."""
    unit: str = "nats a token"
    """Of the outcome."""


@dataclass(frozen=True)
class DivergenceCount:
    """Diverged runs of a treatment against the control's, all scales together; p: Fisher's exact test."""

    variant: str
    diverged: int
    runs: int
    control_diverged: int
    control_runs: int
    p: float | None


@dataclass(frozen=True)
class SampleRow:
    """Samples of one variant of images at one scale, beside real ones. Means over seeds."""

    scale: str
    variant: str
    seeds: int
    distance: float
    """Squared Frechet distance to the training images."""
    floor: float
    """That of as many held-out images."""
    delta: Effect | None
    """Against the control's run of the same seed; None for the control."""
    count: int
    """Samples a run. The distance is biased upwards, the more so the fewer these are."""
    features: str


@dataclass(frozen=True)
class Deviation:
    """What was decided otherwise after the rule was written down."""

    kind: str
    detail: str


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


@dataclass(frozen=True)
class ExpertUse:
    """How a variant's experts were used at one scale: means over the last tenth of each run."""

    scale: str
    variant: str
    n: int
    load: float
    """Largest share of assignments that one expert of one layer got, times the number of experts."""
    dropped: float
    """Share of assignments that no expert had room for."""


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


def to_json(result: Any) -> Any:
    """Plain data of a result: dictionaries, lists, text, finite numbers, None.

    Enums by value, tuples as lists, NaN and infinities as None (JSON has neither).
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {f.name: to_json(getattr(result, f.name)) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        return {str(key): to_json(value) for key, value in sorted(result.items())}
    if isinstance(result, list | tuple):
        return [to_json(value) for value in result]
    if isinstance(result, Enum):
        return result.value
    return _scalar(result)


def dumps(comparison: Comparison, *, times: bool = True) -> str:
    """The JSON text of a comparison, byte for byte equal for equal inputs but for the key `times`."""
    content = to_json(comparison)
    if not times:
        content.pop("times")
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
