"""What stands beside the verdict: what each variant was given, and what else its runs came to."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.stats.estimates import Effect


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
class ExpertUse:
    """How a variant's experts were used at one scale: means over the last tenth of each run."""

    scale: str
    variant: str
    n: int
    load: float
    """Largest share of assignments that one expert of one layer got, times the number of experts."""
    dropped: float
    """Share of assignments that no expert had room for."""
