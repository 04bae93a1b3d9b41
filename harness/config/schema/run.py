"""What can be chosen, as types: a dataclass for each group of `conf/` and each node of a run.

What is trained stands here; `machines` says where, `engines` by whom, and `judging` what for.

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

from harness.config.schema.cluster import ClusterConfig, MeshConfig
from harness.config.schema.decision import GateConfig, RuleConfig, TuneConfig
from harness.config.schema.engine import EngineConfig, ResumeConfig


class MatchBy(Enum):
    """What variants of one scale are made equal in (within 1 %), by the feed-forward width."""

    params = "params"
    flops = "flops"
    none = "none"


class ModelFamily(Enum):
    """What is trained: a decoder of text, or a diffusion transformer of images."""

    decoder = "decoder"
    dit = "dit"


class DataKind(Enum):
    """What is read."""

    text = "text"
    images = "images"


class Remat(Enum):
    """What the backward pass computes again: nothing, all but products with weights, or everything."""

    none = "none"
    dots = "dots"
    full = "full"


class Precision(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Profile(Enum):
    """What each run traces with JAX's profiler: nothing, or a few of its steps."""

    none = "none"
    steps = "steps"


class FinetuneMethod(Enum):
    """How a run starts from another run's checkpoint: it does not; all of it learns; low-rank factors beside
    its matrices learn; or its last layers do."""

    none = "none"
    full = "full"
    lora = "lora"
    last_layers = "last_layers"


@dataclass
class ModuleConfig:
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
class RosterConfig:
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

    attention: ModuleConfig = field(default_factory=lambda: ModuleConfig("mha"))
    feedforward: ModuleConfig = field(default_factory=lambda: ModuleConfig("swiglu"))
    match: MatchBy = MatchBy.params
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
    kind: ModelFamily = ModelFamily.decoder
    conditioning: ModuleConfig = field(default_factory=lambda: ModuleConfig("adaptive_norm"))
    """How a diffusion transformer is told time and label."""
    patch: int = 4
    """Side of its patches, in pixels; each is a token."""


@dataclass
class FinetuneConfig:
    """The checkpoint that a run starts from, and what of it learns."""

    method: FinetuneMethod = FinetuneMethod.none
    parent: str | None = None
    """RUN or RUN@STEP: a run directory of the same architecture and tokenizer (RUN: its last checkpoint)."""
    rank: int = 8
    """Of the factors of lora."""
    alpha: float = 16.0
    """The product of the factors counts alpha / rank times."""
    trainable_layers: int | None = None
    """How many of the last layers learn under frozen, with what follows them; all else rests, and so does
    the embedding."""


@dataclass
class ComputeConfig:
    """How the same mathematics is executed."""

    scan_layers: bool = False
    """Run the layers as one `jax.lax.scan` over stacked parameters: compiles once a layer kind."""
    remat: Remat = Remat.none
    dtype: Precision = Precision.float32
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
    kind: DataKind = DataKind.text
    label_dropout: float = 0.1
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


@dataclass
class LossConfig:
    """Terms that are added to the loss."""

    z_loss: float = 0.0
    """Weight of the mean squared log-partition (arXiv:2204.02311, section 5)."""


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
    roster: RosterConfig = field(default_factory=RosterConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
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


def num_steps(config: Config) -> int:
    """Optimizer steps of a run: the token budget over tokens a step, rounded down."""
    return config.scale.tokens // (config.scale.batch * config.data.sequence_length)


def to_config(node: Any) -> Config:
    """A Config from containers, every value checked against the schema (raises OmegaConf's errors)."""
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(_schema(), node)))


@functools.cache
def _schema() -> DictConfig:
    """Built once: it takes as long as a merge."""
    return OmegaConf.structured(Config)
