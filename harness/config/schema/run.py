"""Typed config nodes of a run; `schedule`, `cluster`, `engine` and `decision` hold the others.

Hydra merges the YAML of `conf/` into these dataclasses, so composing refuses an unknown key or a wrong type.
Modules pass these nodes, never loose dicts, except the `options` of a mechanism, which only that reads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Any, cast, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from harness.config.schema.cluster import ClusterConfig, MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.decision import GateConfig, RuleConfig, TuneConfig
from harness.config.schema.engine import EngineConfig, ResumeConfig
from harness.config.schema.finetune import FinetuneConfig
from harness.config.schema.run_schedule import CheckpointConfig, EvaluationConfig, ScheduleConfig
from harness.config.schema.tracker import TrackerConfig


class MatchBy(Enum):
    """Quantity that the feed-forward width makes equal (within 1 %) among the variants of a scale."""

    params = "params"
    flops = "flops"
    none = "none"


class Remat(Enum):
    """Rematerialisation in the backward pass: none, all except products with weights, or everything."""

    none = "none"
    dots = "dots"
    full = "full"


class Precision(Enum):
    """Compute dtype."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Kernels(Enum):
    """Kernels of libraries: fused where the platform has one that carries the options, never, or always."""

    auto = "auto"
    reference = "reference"
    fused = "fused"


class Profile(Enum):
    """Trace by JAX's profiler: none, or a few steps of each run."""

    none = "none"
    steps = "steps"


@dataclass
class ModuleConfig:
    """Registered name of a mechanism, and its options, which its own dataclass validates."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class VariantConfig:
    """Variant of the comparison: its name, and the config nodes that it may change."""

    name: str = MISSING
    """Name of the variant in folders and verdicts."""
    touches: list[str] = field(default_factory=list)
    """Dotted config nodes in which this variant may differ from the others."""


@dataclass
class ScaleConfig:
    """Model size and token budget of one rung."""

    name: str = MISSING
    """Name of the scale in folders and verdicts."""
    parameters: int = MISSING
    """Target number of non-embedding parameters."""
    tokens: int = MISSING
    """Number of training tokens of one run."""
    batch: int = MISSING
    """Number of sequences per optimizer step."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW at this size, to which conf/optimizer/ sets that of every optimizer."""


@dataclass
class RosterConfig:
    """Source of the sizes of a roster's members: conf/scale/<roster>/."""

    name: str = ""
    """Folder of the sizes in conf/scale/; empty: there is none."""
    vocabulary: int | None = None
    """Vocabulary size of data that is not available here (images: labels + 1); null: the data is here. With a
    value, the roster can be planned but not trained."""
    image: list[int] | None = None
    """Height, width and channels of images that are not available here."""

    @property
    def planned(self) -> bool:
        """True if the data is only described, so that the run can be planned but not trained."""
        return self.vocabulary is not None


@dataclass
class ModelConfig:
    """Model. A null width, layers, heads or ffn follows from `scale.parameters` (harness.models.sizing)."""

    attention: ModuleConfig = field(default_factory=lambda: ModuleConfig("mha"))
    """Attention of each layer."""
    feedforward: ModuleConfig = field(default_factory=lambda: ModuleConfig("swiglu"))
    """Feed-forward layer, with experts or without."""
    match: MatchBy = MatchBy.params
    """Quantity that variants of one scale share: params, flops or none."""
    width: int | None = None
    """Width of the residual stream."""
    layers: int | None = None
    """Number of layers."""
    heads: int | None = None
    """Number of query heads."""
    ffn: int | None = None
    """Hidden width of the feed-forward layer."""
    head_width: int = 32
    """Width of one attention head."""
    base_width: int | None = None
    """Model width for which the learning rate is meant; muP carries it to this width. Null: no scaling."""
    tie_embeddings: bool = True
    """Use one table for the input embedding and the output head."""
    vocabulary_multiple: int = 128
    """Number that divides the rows of embedding and head, so that devices can share them: a decoder gets rows
    that are no token, which it never predicts and which never learn. 1: one row a token."""
    logit_softcap: float | None = None
    """Bound of the logits: l becomes softcap tanh(l / softcap) (arXiv:2408.00118, section 2); null: none."""
    qk_norm: bool = True
    """Normalise queries and keys (RMSNorm)."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_epsilon: float = 1e-6
    """Number that a norm adds to the mean square, against a division by zero."""
    block: ModuleConfig = field(default_factory=lambda: ModuleConfig("pre_norm"))
    """Block: how attention and feed-forward layer meet the residual stream."""
    norm: ModuleConfig = field(default_factory=lambda: ModuleConfig("rms"))
    """Norm of the residual stream, of queries and keys, and before the head."""
    position: ModuleConfig = field(default_factory=lambda: ModuleConfig("rope"))
    """Frequencies by which positions rotate queries and keys."""
    embedding: ModuleConfig = field(default_factory=lambda: ModuleConfig("table"))
    """Embedding: what the layers read of the tokens, from the rows of the table."""
    head: ModuleConfig = field(default_factory=lambda: ModuleConfig("linear"))
    """Logits from the output of the last layer."""
    initialisation: ModuleConfig = field(default_factory=lambda: ModuleConfig("fan_in"))
    """Distribution from which parameters are drawn."""
    scaling: ModuleConfig = field(default_factory=lambda: ModuleConfig("mup"))
    """Rule that carries learning rates from `base_width` to this width."""
    kind: str = "decoder"
    """Registered model family: decoder (text), dit (images), or one of your own."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a model family of your own."""
    conditioning: ModuleConfig = field(default_factory=lambda: ModuleConfig("adaptive_norm"))
    """Conditioning of a diffusion transformer on time and label."""
    patch: int = 4
    """Side of an image patch, in pixels; each patch is one token."""


@dataclass
class ProductsConfig:
    """Precision of the products with weights, by part of a layer. Embedding, head, routers and gates keep
    `compute.dtype`."""

    attention: str = "dtype"
    """Projections of attention: dtype, fp8, or a registered product of your own."""
    feedforward: str = "dtype"
    """Feed-forward layers without experts: the same."""


@dataclass
class ComputeConfig:
    """Execution of the model; the mathematics stay the same."""

    scan_layers: bool | None = None
    """Run the layers as one `jax.lax.scan` over stacked parameters, compiled once per layer kind. Null: deep
    models do (harness.models.execution.layer_stack)."""
    remat: Remat = Remat.none
    """Rematerialisation in the backward pass: none, dots or full."""
    dtype: Precision = Precision.float32
    """Dtype of products and of what passes between layers."""
    parameter_dtype: Precision = Precision.float32
    """Dtype in which weight matrices are kept. An update computed in float32 is rounded to bfloat16 up or
    down at random, so that it is exact on average. Vectors, such as gains, are float32."""
    products: ProductsConfig = field(default_factory=ProductsConfig)
    kernels: Kernels = Kernels.auto
    """Kernels of attention and experts: auto takes a library's fused kernel on `cluster.platform` where it
    has one that carries the options, and the reference elsewhere; reference or fused alone."""
    microbatches: int = 1
    """Number of sequential parts of each batch (gradient accumulation). Every term of the loss is a mean over
    sequences, so the number changes only rounding."""


@dataclass
class OptimizerGroupConfig:
    """Parameters with an optimizer, rate or decay of their own. What is null is that of the whole run."""

    match: str = MISSING
    """Paths with `*`, such as `*.attention.*` or `embedding`, or `vectors` or `matrices`."""
    name: str | None = None
    """Registered optimizer."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the optimizer that `name` gives."""
    learning_rate: float | None = None
    """Factor of the run's learning rate."""
    weight_decay: float | None = None
    """Weight decay of the group."""


@dataclass
class OptimizerConfig:
    """Optimizer and its hyperparameters."""

    name: str = "adamw"
    """Registered optimizer, such as adamw, lion or muon."""
    learning_rate: float = MISSING
    """Peak learning rate."""
    b1: float = 0.9
    """Decay of the first moment, by step."""
    b2: float = 0.95
    """Decay of the second moment, by step."""
    epsilon: float = 1e-8
    """Number that is added to the root of the second moment, against a division by zero."""
    momentum: float = 0.95
    """Momentum of muon for matrices; the other parameters use AdamW with b1 and b2."""
    ns_steps: int = 5
    """Number of Newton-Schulz iterations of muon."""
    weight_decay: float = 0.1
    """Weight decay: a step takes learning rate x decay x parameter away."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""
    moment_dtype: Precision = Precision.float32
    """Dtype in which the moments of weight matrices are kept; bfloat16 rounds them as
    `compute.parameter_dtype` rounds matrices."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of an optimizer that has its own. Those of adamw, lion and muon are the keys above."""
    groups: list[OptimizerGroupConfig] = field(default_factory=list)
    """Parameters with an optimizer or settings of their own; the first group that matches counts."""


@dataclass
class LossConfig:
    """Additional terms of the loss."""

    z_loss: float = 0.0
    """Weight of the mean squared log-partition (arXiv:2204.02311, section 5)."""


@dataclass
class ProfileConfig:
    """Profiler trace in the run's `profile/`, at most one per run."""

    name: Profile = Profile.none
    first: int = 10
    """First traced step of an attempt, after the slow steps of the warm-up."""
    last: int = 15
    """Last traced step of an attempt."""


@dataclass
class Config:
    """Resolved config of one run."""

    experiment_name: str = MISSING
    """Name of the sweep: its folder in `runs`."""
    variant: VariantConfig = field(default_factory=VariantConfig)
    roster: RosterConfig = field(default_factory=RosterConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    objective: ModuleConfig = field(default_factory=lambda: ModuleConfig("next_token"))
    """Objective that is minimised. Runs are compared by their loss of held-out data all the same."""
    metrics: list[ModuleConfig] = field(default_factory=list)
    """Scalars of your own, recorded at each step or evaluation."""
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
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    imports: list[str] = field(default_factory=list)
    """Modules that workers import, so that users' mechanisms are registered."""
    seed: int = 0
    """Seed of the parameters."""
    data_seed: int = 0
    """Seed of the order of examples; conf/config.yaml sets it to `seed`."""
    runs: str = "runs"
    """Folder of the sweeps."""


LOSS_PIECE_VALUES = 2**27
"""Logits that one device holds at once (512 MiB in float32). A batch with more takes its loss in pieces
(harness.models.text.cross_entropy)."""


def loss_piece_tokens(vocabulary: int) -> int:
    """Return the tokens of a piece of the loss over a shard of the vocabulary: a power of two, at least 1."""
    return 2 ** max(0, (LOSS_PIECE_VALUES // vocabulary).bit_length() - 1)


def num_steps(config: Config) -> int:
    """Return the number of optimizer steps: the token budget over tokens per step, rounded down."""
    return config.scale.tokens // (config.scale.batch * config.data.sequence_length)


def field_type(key: str) -> Any:
    """Return the declared type of a dotted key; None if the schema has no such key."""
    declared: Any = Config
    for name in key.split("."):
        declared = get_type_hints(declared).get(name) if is_dataclass(declared) else None
    return declared


def to_config(node: Any) -> Config:
    """Convert containers to a Config, checking every value. Raises OmegaConf's errors."""
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(_schema(), node)))


@functools.cache
def _schema() -> DictConfig:
    """Build the schema, cached because it takes as long as a merge."""
    return OmegaConf.structured(Config)
