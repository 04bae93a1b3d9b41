"""The contract of a mechanism: its inputs, and the costs and statistics that it reports."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from operator import add
from typing import NamedTuple

from jax import Array

from harness import moved
from harness.config.schema.run import ModuleConfig
from harness.models.kernels import CPU, KernelTarget
from harness.models.norms.norm_registry import NORMS, ConfiguredNorm, Norm


@dataclass(frozen=True)
class ModelDims:
    """Sizes of a decoder. All variants of a scale share them, except `ffn`."""

    width: int
    layers: int
    heads: int
    head_width: int
    ffn: int
    vocabulary: int


@dataclass(frozen=True)
class LayerContext:
    """Facts about one layer of a model: everything that a mechanism may depend on when it is built."""

    shape: ModelDims
    layer: int
    sequence_length: int
    qk_norm: bool
    norm_epsilon: float
    per_device_batch: int = 1
    """Sequences that one device processes at once. The more, the less per-batch padding costs per token."""
    sequence_shards: int = 1
    """Number of devices that share one sequence."""
    documents: bool = False
    """True if attention stays within a document."""
    target: KernelTarget = CPU
    """Platform and dtype that kernels are chosen for."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    configured_norm: ConfiguredNorm = field(default_factory=lambda: NORMS.lookup(ModuleConfig("rms")))
    """Norm that `norm` builds."""
    sequences = property(lambda context: getattr(context, moved.current_name("sequences")))
    parts = property(lambda context: getattr(context, moved.current_name("parts")))

    def norm(self, size: int, axis: str | None = "width") -> Norm:
        """Build the norm of `model.norm` over a last axis of this size. `axis` is its logical name; None for
        an axis inside a head or a latent."""
        return self.configured_norm.build(size, axis, self)


NO_PERIOD = 10_000
"""`period` of a mechanism of which no two layers are alike: such layers are not scanned."""


class RouterStats(NamedTuple):
    """Statistics of a feed-forward layer with experts, beside its output; stacked by layer under a scan."""

    load_E: Array
    """Fraction of all assignments that each expert received, float32; sums to 1."""
    dropped: Array
    """Fraction of all assignments that exceeded the experts' capacity."""
    auxiliary: Array | None
    """Term added to the training loss, averaged over micro-batches: a mean over sequences does not depend on
    `compute.microbatches`, a product of two means over the batch does. None adds nothing."""


@dataclass(frozen=True)
class MatmulFlops:
    """FLOPs of one token's forward pass through one layer as executed, padding and masked keys included.

    They are grouped by what rematerialisation does: `dots` saves products with weights and recomputes
    products between activations; `full` recomputes everything except `final`, the layer's last product,
    because only the residual sum needs its result.
    """

    weights: float = 0.0
    activations: float = 0.0
    final: float = 0.0
    rescored: float = 0.0
    """FLOPs of products between activations that a custom gradient rule multiplies again because it saves no
    scores."""

    @property
    def total(self) -> float:
        """FLOPs of the forward pass, without recomputation."""
        return self.weights + self.activations + self.final

    def __mul__(self, factor: float) -> MatmulFlops:
        return MatmulFlops(*(factor * flops for flops in astuple(self)))

    def __add__(self, other: MatmulFlops) -> MatmulFlops:
        return MatmulFlops(*map(add, astuple(self), astuple(other)))
