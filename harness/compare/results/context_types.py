"""Result types shown beside the verdict: resources of each variant, run states and secondary results."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.stats.estimates import Effect


@dataclass(frozen=True)
class FairnessRow:
    """Resources of one variant at one scale, compared with the control's. Runs of the variant that were given
    something else have a row of their own."""

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
    """Fingerprint of the training data."""
    evaluation: str
    """Fingerprint of the held-out tokens."""
    learning_rate: float | None
    tuning: str
    shared: float | None
    """Share of this variant's parameters that the control has under the same path and shape."""
    code: str
    touches: tuple[str, ...]
    flags: tuple[str, ...] = ()
    curve: tuple[tuple[float, float | None], ...] = ()
    """(learning rate, end-of-run loss) of each tuned rate; the loss is None if the run diverged."""
    mix: str = ""
    """Share of each source; empty if the record has none."""
    shared_examples: float | None = None
    """Share of a run's examples that the control's run of the same seed also reads, at any step. None for the
    control, if both read the same examples, or if their texts are cut into windows differently."""
    parting: int | None = None
    """First step at which the two runs read different examples; None if `shared_examples` is None."""
    base: str = ""
    """Checkpoint that the runs start from, with * for scale and seed; empty for none."""
    trainable: int = 0
    """Number of trainable parameters, if there is a base."""
    active_parameters: int = 0
    """Non-embedding parameters used per token; 0 if the record has none."""
    kernels: str = ""
    """Kernels of attention and experts, such as `attention: cuDNN`; empty if the record has none."""


@dataclass(frozen=True)
class ForgettingRow:
    """Loss of a fine-tuned variant on an untrained domain, before the first step and at the end."""

    scale: str
    variant: str
    control: bool
    domain: str
    start: float
    """Mean loss over seeds before the first step."""
    end: float
    change: Effect
    """End minus start; positive means forgetting."""
    delta: Effect | None
    """Change minus the control's change, paired by seed; None for the control."""


@dataclass(frozen=True)
class RunState:
    """State of one run. `outcome`: its end-of-run loss in `unit`, None if it has none."""

    scale: str
    variant: str
    seed: int
    state: str
    step: int
    steps: int
    outcome: float | None
    problem: str
    """Sentence that says why the run cannot be used as it is; empty if it can."""
    path: str
    """Path relative to the sweep."""
    unit: str = "nats a token"


@dataclass(frozen=True)
class DivergenceCount:
    """Number of diverged runs of a treatment and of the control over all scales; p: Fisher's exact test."""

    variant: str
    diverged: int
    runs: int
    control_diverged: int
    control_runs: int
    p: float | None


@dataclass(frozen=True)
class SampleRow:
    """Quality of the image samples of one variant at one scale; means over seeds."""

    scale: str
    variant: str
    seeds: int
    distance: float
    """Squared Frechet distance to the training images."""
    floor: float
    """Distance of equally many held-out images to the training images."""
    delta: Effect | None
    """Difference from the control's run of the same seed; None for the control."""
    count: int
    """Samples per run. The distance is biased upwards, more so for fewer samples."""
    features: str


@dataclass(frozen=True)
class OwnMetricRow:
    """Metric of the runs' own at their end: the last tenth of the steps, or the last evaluation."""

    scale: str
    variant: str
    metric: str
    domain: str
    """Held-out domain; empty for a metric of each step."""
    unit: str
    better: str | None
    """`lower` or `higher`; None: neither."""
    seeds: int
    mean: float
    """Mean over seeds."""
    delta: Effect | None
    """Difference from the control's run of the same seed; None for the control."""


@dataclass(frozen=True)
class ExpertUse:
    """Expert load of a variant at one scale: means over the last tenth of each run."""

    scale: str
    variant: str
    n: int
    load: float
    """Largest share of assignments of any expert in any layer, times the number of experts (1: balanced)."""
    dropped: float
    """Share of assignments dropped because the expert was full."""
