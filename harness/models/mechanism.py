"""What a mechanism is told, and what it answers about its own cost."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from operator import add
from typing import NamedTuple

from jax import Array


@dataclass(frozen=True)
class ModelDims:
    """The size of a decoder. Equal for all variants of a scale, but for `ffn`."""

    width: int
    layers: int
    heads: int
    head_width: int
    ffn: int
    vocabulary: int


@dataclass(frozen=True)
class LayerContext:
    """Where in a model a mechanism stands: all that it may know when it is built."""

    shape: ModelDims
    layer: int
    sequence_length: int
    qk_norm: bool
    norm_epsilon: float
    per_device_batch: int = 1
    """That one device takes at once: what is padded a batch costs each token less, the more there are."""
    sequence_shards: int = 1
    """Devices that share a sequence."""


class RouterStats(NamedTuple):
    """What a feed-forward layer with experts says beside its output; stacked by layer under a scan."""

    load_E: Array
    """Share of all assignments that each expert got, float32; sums to 1."""
    dropped: Array
    """Share of all assignments that no expert had room for."""
    auxiliary: Array | None
    """What is added to the loss that is minimised; None: nothing."""


@dataclass(frozen=True)
class MatmulFlops:
    """FLOPs of one token's forward pass in one layer as written: padding and masked keys too.

    Kept apart by what rematerialisation does to them: `dots` keeps products with weights and
    computes those among activations again; `full` computes all again but `final`, the layer's last
    product, because nothing but the residual sum needs its result.
    """

    weights: float = 0.0
    activations: float = 0.0
    final: float = 0.0
    rescored: float = 0.0
    """Of those among activations, what a gradient rule that keeps no scores multiplies once more itself."""

    @property
    def total(self) -> float:
        return self.weights + self.activations + self.final

    def __mul__(self, factor: float) -> MatmulFlops:
        return MatmulFlops(*(factor * each for each in astuple(self)))

    def __add__(self, other: MatmulFlops) -> MatmulFlops:
        return MatmulFlops(*map(add, astuple(self), astuple(other)))
