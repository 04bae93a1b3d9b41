"""What can be chosen, as types: one dataclass a group of `conf/`.

Hydra merges the YAML of `conf/` into these, so an unknown key or a wrong type is refused
when the config is composed. Every module of the harness takes one of these nodes; no loose
dict crosses a module, but for a mechanism's `options`, which only the mechanism itself reads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf


class Match(Enum):
    """What variants of one scale are made equal in (within 1 %), by the feed-forward width."""

    params = "params"
    flops = "flops"
    none = "none"


class Kind(Enum):
    """What is trained: a decoder of text, or a diffusion transformer of images."""

    decoder = "decoder"
    dit = "dit"


class Content(Enum):
    """What is read."""

    text = "text"
    images = "images"


class Layers(Enum):
    unrolled = "unrolled"
    scanned = "scanned"


class Remat(Enum):
    """What the backward pass computes again: nothing, all but products with weights, or everything."""

    none = "none"
    dots = "dots"
    full = "full"


class Precision(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Isolation(Enum):
    """Who shares a worker process: the variants of a block, nobody, or the whole sweep (where one process
    owns every device of a host)."""

    block = "block"
    run = "run"
    all = "all"


class Submit(Enum):
    """What Slurm is given for each worker: a job of its own, or a step in the allocation that the driver is
    already in."""

    jobs = "jobs"
    steps = "steps"


class Schedule(Enum):
    """How a sweep shares its devices: longest run first as devices come free, or all runs at once."""

    queue = "queue"
    static = "static"


class Stopping(Enum):
    """When a scale may end before its budget: never, or at a look (a decayed checkpoint of every run)."""

    none = "none"
    looks = "looks"


class Gate(Enum):
    """What a sweep is asked beside the verdict: nothing, or whether a variant is to be promoted."""

    none = "none"
    promote = "promote"


class Tuned(Enum):
    """What each variant gets an equal bracket of before the sweep: nothing, or its learning rate."""

    none = "none"
    lr = "lr"


class Profile(Enum):
    """What each run traces with JAX's profiler: nothing, or a few of its steps."""

    none = "none"
    steps = "steps"


class Method(Enum):
    """How a run starts from another run's checkpoint: it does not; all of it learns; low-rank factors beside
    its matrices learn; or its last layers do."""

    none = "none"
    full = "full"
    lora = "lora"
    frozen = "frozen"


OnFailure = Enum("OnFailure", {"continue": "continue", "stop_block": "stop_block", "stop_all": "stop_all"})
"""What a run that failed for good ends: itself, the rest of its block, or the sweep. By call, because
`continue` is a word of Python, and OmegaConf reads an enum by its names."""


@dataclass
class Mechanism:
    """A registered name and that mechanism's own options (validated by its own dataclass)."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class VariantConfig:
    name: str = MISSING
    touches: list[str] = field(default_factory=list)
    """Config nodes, dotted, in which this variant may differ from its siblings."""


@dataclass
class ScaleConfig:
    name: str = MISSING
    parameters: int = MISSING
    """Target of non-embedding parameters."""
    tokens: int = MISSING
    """Token budget of one run."""
    batch: int = MISSING
    """Sequences a step."""


@dataclass
class LadderConfig:
    """Where the members of a roster have their sizes from: conf/scale/<ladder>/."""

    name: str = ""
    vocabulary: int | None = None
    """Of data that are not here (of images: labels, and one for none). What names it is planned with; it
    cannot be trained."""
    image: list[int] | None = None
    """Height, width and channels of images that are not here."""

    @property
    def planned(self) -> bool:
        return self.vocabulary is not None


@dataclass
class ModelConfig:
    """A shape entry that is null is found by `sizing` from `scale.parameters`."""

    attention: Mechanism = field(default_factory=lambda: Mechanism("mha"))
    feedforward: Mechanism = field(default_factory=lambda: Mechanism("swiglu"))
    match: Match = Match.params
    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    ffn: int | None = None
    head_width: int = 32
    base_width: int | None = None
    """Learning rates are those of a model of this width, and carried to this one by the maximal-update
    rule (null: as they are)."""
    tie_embeddings: bool = True
    qk_norm: bool = True
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6
    kind: Kind = Kind.decoder
    conditioning: Mechanism = field(default_factory=lambda: Mechanism("adaptive_norm"))
    """How a diffusion transformer is told time and label."""
    patch: int = 4
    """Side of its patches, in pixels; each is a token."""


@dataclass
class FinetuneConfig:
    """The checkpoint that a run starts from, and what of it learns."""

    method: Method = Method.none
    parent: str | None = None
    """RUN or RUN@STEP: a run directory of the same architecture and tokenizer (RUN: its last checkpoint)."""
    rank: int = 8
    """Of the factors of lora."""
    alpha: float = 16.0
    """The product of the factors counts alpha / rank times."""
    layers: int | None = None
    """How many of the last layers learn under frozen, with what follows them; all else rests, and so does
    the embedding."""


@dataclass
class ComputeConfig:
    """How the same mathematics is executed."""

    layers: Layers = Layers.unrolled
    remat: Remat = Remat.none
    precision: Precision = Precision.float32
    microbatches: int = 1


@dataclass
class SourceConfig:
    path: str = MISSING
    """A file or folder: .txt, .txt.zst (documents separated by a line <|endoftext|>), .jsonl, .parquet;
    of images .npz (`images` uint8 [N, H, W] or [N, H, W, C], and `labels` [N] if they have any);
    or `pack:NAME` for a text or images that ship with the harness."""
    weight: float = 1.0
    """Share of the examples, in proportion to the others' weights. 0: evaluated, never trained on."""
    column: str = "text"
    """The text column of JSONL and Parquet."""


@dataclass
class StageConfig:
    """A change of the mix in the middle of a run."""

    start: float = MISSING
    """Share of the run's steps at which it begins."""
    weights: dict[str, float] = field(default_factory=dict)
    """By source, from there on; one that is not named keeps the weight that it had."""


@dataclass
class DataConfig:
    name: str = MISSING
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    tokenizer: str = "bpe512"
    """`byte`, `bpe512`, or the path of a `tokenizers` JSON file."""
    sequence_length: int = 128
    """Of images: patches an image."""
    holdout: float = 0.05
    """Share of documents held out, by a hash of their text; of images, by a hash of their pixels."""
    mask_documents: bool = False
    """A token attends to its own document alone; what is read, and in which order, stays the same."""
    stages: list[StageConfig] = field(default_factory=list)
    """Other mixes later in the run, in order. A cooldown branch reads what its parent would have read
    up to there, so a stage that begins after it is not in it."""
    horizon: int | None = None
    """The token budget that `stages` are shares of: ${scale.tokens}, since a batch follows from the data
    config, the data seed and the step alone. Null where there are none."""
    kind: Content = Content.text
    unlabelled: float = 0.1
    """Of images: share of the examples that are trained on without their label (for guidance)."""


@dataclass
class OptimizerConfig:
    name: str = "adamw"
    learning_rate: float = MISSING
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.95
    """Of muon's matrices; what muon leaves to AdamW has b1 and b2."""
    ns_steps: int = 5
    """Newton-Schulz iterations of muon."""
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    z_loss: float = 0.0


@dataclass
class ScheduleConfig:
    """Shares of the run's steps. `branches`: shares of the token budget at which a cooldown
    branch ends; each is the run that a budget of that share would have been."""

    name: str = MISSING
    warmup: float = 0.05
    cooldown: float = 0.15
    floor: float = 0.0
    """Final learning rate as a share of the peak."""
    branches: list[float] = field(default_factory=list)


@dataclass
class EvaluationConfig:
    points: int = 8
    """Evaluations of a run, evenly spaced; the last is at the end."""
    tokens: int = 16_384
    """Held-out tokens a domain."""


@dataclass
class CheckpointConfig:
    every: int = 100
    """Steps between checkpoints; also the length of a metrics part."""
    keep_last: int = 2
    keep_every: int = 0
    """Also keep each checkpoint whose step is a multiple of this (0: none)."""


@dataclass
class MeshConfig:
    """The lane of one run."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    expert: int = 1
    """Experts are split over it, and so is the batch."""
    context: int = 1
    """Each sequence of tokens is split over it: keys and values go from device to device."""

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.context * self.tensor * self.expert


@dataclass
class KindConfig:
    """Chips of one kind in a cluster. Null: not known, and refused where a plan needs it."""

    chip: str = MISSING
    """Such as H100-80G; its first word says what share of the peak it is known to reach (harness.plan)."""
    chips: int | None = None
    memory_gib: float | None = None
    memory_gb_s: float | None = None
    peak_tflops: dict[str, float] = field(default_factory=dict)
    """Of one chip without sparsity, by precision: bf16, fp8, float32."""
    fast_domain: int | None = None
    """Chips that reach each other over the fast links."""
    fast_gb_s: float | None = None
    """Of one chip, one direction."""
    slow_gb_s: float | None = None
    """The same between fast domains."""
    watts: float | None = None
    """Of one chip with its share of host and switches, under load."""
    device_years: float | None = None
    """Years that one chip runs for each interruption that nobody planned."""


@dataclass
class ClusterConfig:
    """The machine: `cpu` simulates as many devices as the lanes ask for."""

    name: str = "local"
    platform: str = "cpu"
    kinds: dict[str, KindConfig] = field(default_factory=dict)
    """What it is made of, for `harness plan`; only a machine that is not here needs any."""
    power_overhead: float | None = None
    """Power at the meter over power of the chips' hosts (PUE)."""
    site_megawatts: float | None = None
    """What the site can draw; null: not known."""
    restart_minutes: float | None = None
    """From an interruption to the next step: detect, exchange, start, load."""
    checkpoint_gb_s: float | None = None
    """What one chip can write to shared storage while all do."""


@dataclass
class SlurmConfig:
    """What Slurm is asked for, a worker. Null: whatever the site gives by itself."""

    submit: Submit = Submit.jobs
    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None
    """Of a job, as `sbatch --time` takes it."""
    save_seconds: int = 120
    """Before the time limit, a worker is told to save; it is submitted again, and goes on."""
    constraint: str | None = None
    """Features that each node must have, so that both variants of a block get equal ones whatever shares
    a job."""
    nodelist: str | None = None
    cpus: int = 1
    """A device."""
    gpus: int = 0
    """A device."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the worker, such as `module load cuda`."""
    extra: list[str] = field(default_factory=list)
    """More options of `sbatch` or `srun`, such as `--mem=64G`."""


@dataclass
class RayConfig:
    """Which Ray, and what of it a worker takes."""

    address: str | None = None
    """`host:port` of a cluster's head, or `auto` for the one that this machine is in; null: one is started
    here, and ends with the sweep."""
    resources: dict[str, str] = field(default_factory=lambda: {"cpu": "CPU", "cuda": "GPU", "tpu": "TPU"})
    """By cluster.platform, the resource of which a worker takes one a device."""


@dataclass
class EngineConfig:
    name: str = "local"
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    isolation: Isolation = Isolation.block
    workers: int = 0
    """Workers at a time; 0: one a core, as memory allows."""
    schedule: Schedule = Schedule.queue
    devices: int = 0
    """Devices that the sweep is placed on, which gives each run its width; 0: each run keeps the mesh that
    it has, and as many train as there are workers."""
    processes: int = 1
    """That each run is trained by, its devices shared out among them; above 1 each run has workers of its
    own, whatever `isolation` says."""
    dry_run: bool = False
    """Print the plan, and train and write nothing (`harness sweep OVERRIDES --dry-run`)."""
    attempts: int = 3
    backoff_seconds: float = 1.0
    stall_seconds: float = 300.0
    """A worker without progress for so long is ended and its runs restarted."""
    on_failure: OnFailure = OnFailure["continue"]


@dataclass
class ResumeConfig:
    allow_drift: bool = False
    """Continue an unfinished run although the code changed (recorded, and shown as MIXED_CODE)."""
    replan: bool = False
    """Give unfinished blocks a new placement and start them over."""


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

    name: Tuned = Tuned.none
    points: int = 5
    """Learning rates a variant, `factor` apart, around optimizer.learning_rate."""
    factor: float = 2.0
    seed: int = 1_000_003


@dataclass
class ProfileConfig:
    """A trace in the run's `profile/`, once a run."""

    name: Profile = Profile.none
    first: int = 10
    """The steps that are traced, counted in the attempt; behind those that are slow because they are new."""
    last: int = 15


@dataclass
class Config:
    """One run, resolved."""

    experiment_name: str = MISSING
    variant: VariantConfig = field(default_factory=VariantConfig)
    ladder: LadderConfig = field(default_factory=LadderConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    rule: RuleConfig = field(default_factory=RuleConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    imports: list[str] = field(default_factory=list)
    """Users' modules to import in workers, so that their mechanisms are registered."""
    seed: int = 0
    """Parameters."""
    data_seed: int = 0
    """Order of examples (conf/config.yaml: the same as `seed`)."""
    runs: str = "runs"
    """Folder that holds the sweeps."""


def steps_of(config: Config) -> int:
    """Optimizer steps of a run: the token budget over tokens a step, rounded down."""
    return config.scale.tokens // (config.scale.batch * config.data.sequence_length)


def typed(node: Any) -> Config:
    """A Config from containers, every value checked against the schema (raises OmegaConf's errors)."""
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(_schema(), node)))


@functools.cache
def _schema() -> DictConfig:
    """Built once: it takes as long as a merge."""
    return OmegaConf.structured(Config)
