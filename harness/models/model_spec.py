"""A model config at given sizes: the mechanism of every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from harness.config.schema.run import ModelConfig, ProductsConfig
from harness.models.execution.pipeline import PipelineSchedule
from harness.models.kernels import CPU, KernelChoice, KernelTarget
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.registry import ATTENTION, FEEDFORWARD, ConfiguredModule


@dataclass(frozen=True)
class ModelSpec:
    """A model config, its sizes, and the shape of the batches that it is trained on."""

    config: ModelConfig
    shape: ModelDims
    sequence_length: int
    per_device_batch: int = 1
    """Sequences that one device processes at once."""
    end_token: int | None = None
    """Token after which attention starts a new document; None if documents are not masked."""
    sequence_shards: int = 1
    """Number of devices that share one sequence."""
    target: KernelTarget = CPU
    """Platform and dtype that kernels are chosen for."""
    pipeline: PipelineSchedule = field(default_factory=PipelineSchedule)
    """Stages of the layers, and the micro-batches that pass them."""
    products: ProductsConfig = field(default_factory=ProductsConfig)
    """Precision of the products with weights, by part of a layer."""

    @cached_property
    def attention(self) -> ConfiguredModule:
        """The configured attention. Raises UserError if no such mechanism is registered."""
        return ATTENTION.lookup(self.config.attention)

    @cached_property
    def feedforward(self) -> ConfiguredModule:
        """The configured feed-forward layer. Raises UserError if no such mechanism is registered."""
        return FEEDFORWARD.lookup(self.config.feedforward)

    @property
    def display_name(self) -> str:
        """Name of the model in error messages."""
        feedforward = self.config.feedforward.name
        suffix = [feedforward] if feedforward != "swiglu" else []
        return f"'{' with '.join([self.config.attention.name, *suffix])}' decoder"

    @property
    def table_rows(self) -> int:
        """Number of rows of a text model's embedding and head: the vocabulary, and rows that are no token."""
        multiple = self.config.vocabulary_multiple
        return math.ceil(self.shape.vocabulary / multiple) * multiple

    @property
    def period(self) -> int:
        """Number of layers after which the pattern of mechanisms repeats."""
        return math.lcm(self.attention.period, self.feedforward.period)

    @property
    def contexts(self) -> list[LayerContext]:
        """Contexts of all layers, first to last."""
        return [self.context(layer) for layer in range(self.shape.layers)]

    @property
    def kernels(self) -> list[KernelChoice]:
        """Kernels of all layers, first to last: of attention, and of experts if there are."""
        modules = (self.attention, self.feedforward)
        choices = (module.kernel(context) for context in self.contexts for module in modules)
        return [choice for choice in choices if choice is not None]

    def context(self, layer: int) -> LayerContext:
        """Return the context of the layer with this index."""
        norms = self.config.qk_norm, self.config.norm_epsilon
        batch = self.per_device_batch, self.sequence_shards
        kernels = self.end_token is not None, self.target
        return LayerContext(self.shape, layer, self.sequence_length, *norms, *batch, *kernels)
