"""A model config at given sizes: the mechanism of every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.config.schema.run import ModelConfig, ModuleConfig, ProductsConfig
from harness.models.execution.pipeline import PipelineSchedule
from harness.models.initialisation.initialisation_registry import INITIALISATIONS, ConfiguredInitialisation
from harness.models.kernels import CPU, KernelChoice, KernelTarget
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.mup import relative_width
from harness.models.norms.norm_registry import NORMS, ConfiguredNorm
from harness.models.parameters import ParamSpec
from harness.models.registry import ATTENTION, FEEDFORWARD, ConfiguredModule
from harness.models.scaling.scaling_registry import SCALINGS, ConfiguredScaling, Growth
from harness.models.sockets.entries import (
    BLOCKS,
    EMBEDDINGS,
    HEADS,
    OBJECTIVES,
    POSITIONS,
    ConfiguredSocket,
)
from harness.models.sockets.side_inputs import asked_names


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
    objective: ModuleConfig = field(default_factory=lambda: ModuleConfig("next_token"))
    """Objective that is minimised in training."""
    products: ProductsConfig = field(default_factory=ProductsConfig)
    """Precision of the products with weights, by part of a layer."""
    padding_token: int | None = None
    """Token that stands for the empty places of rows; None: every place of a row holds a token."""

    @cached_property
    def attention(self) -> ConfiguredModule:
        """The configured attention. Raises UserError if no such mechanism is registered."""
        return ATTENTION.lookup(self.config.attention)

    @cached_property
    def feedforward(self) -> ConfiguredModule:
        """The configured feed-forward layer. Raises UserError if no such mechanism is registered."""
        return FEEDFORWARD.lookup(self.config.feedforward)

    @cached_property
    def norm(self) -> ConfiguredNorm:
        """The configured norm. Raises UserError if none of that name is registered."""
        return NORMS.lookup(self.config.norm)

    @cached_property
    def initialisation(self) -> ConfiguredInitialisation:
        """The configured initialisation. Raises UserError if none of that name is registered."""
        return INITIALISATIONS.lookup(self.config.initialisation)

    @cached_property
    def scaling(self) -> ConfiguredScaling:
        """The configured scaling. Raises UserError if none of that name is registered."""
        return SCALINGS.lookup(self.config.scaling)

    @cached_property
    def growth(self) -> Growth:
        """Size relative to the model that the learning rate is meant for."""
        return Growth(relative_width(self.config, self.shape.width), self.shape.layers)

    def initial_spec(self, path: str, declared: ParamSpec) -> ParamSpec:
        """Return the spec of a declared parameter with the initial values of this config. Raises UserError
        for values that cannot be drawn."""
        kind, _, rest = path.partition(".")
        layer = int(rest.partition(".")[0]) if kind == "layers" else self.shape.layers
        draw = self.initialisation.draw(path, declared, self.context(layer))
        factor = self.scaling.scale(path, declared, self.growth).deviation
        return replace(declared, draw=draw if factor == 1 else draw.scaled(factor))

    @cached_property
    def block(self) -> ConfiguredSocket:
        """The configured block. Raises UserError if none of that name is registered."""
        return BLOCKS.lookup(self.config.block)

    @cached_property
    def embedding(self) -> ConfiguredSocket:
        """The configured embedding. Raises UserError if none of that name is registered."""
        return EMBEDDINGS.lookup(self.config.embedding)

    @cached_property
    def head(self) -> ConfiguredSocket:
        """The configured head. Raises UserError if none of that name is registered."""
        return HEADS.lookup(self.config.head)

    @cached_property
    def configured_objective(self) -> ConfiguredSocket:
        """The configured objective. Raises UserError if none of that name is registered."""
        return OBJECTIVES.lookup(self.objective)

    @cached_property
    def own_position(self) -> ConfiguredSocket | None:
        """The configured position encoding; None for the frequencies that all layers share."""
        position = POSITIONS.lookup(self.config.position)
        return None if position.name == "rope" else position

    @cached_property
    def gives(self) -> tuple[str, ...]:
        """Names of the arrays that mechanisms give to those after them."""
        parts = (self.attention, self.feedforward, self.block, self.embedding, self.configured_objective)
        entries = [nested.entry for part in parts for nested in part.nested()]
        return tuple(dict.fromkeys(name for entry in entries for name in entry.gives))

    @property
    def table_width(self) -> int:
        """Width of the rows of the embedding table."""
        width = self.embedding.entry.table_width
        return self.shape.width if width is None else width(self.context(0), self.embedding.options)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Layer at each place, in the order in which they are applied."""
        order = self.block.entry.order
        return order(self.block.options, self.shape.layers) if order else tuple(range(self.shape.layers))

    @property
    def scan_obstacle(self) -> str | None:
        """Reason why the layers cannot be scanned, in words; None if they can."""
        if not self.block.entry.scans:
            return f"model.block.name={self.block.name} makes them differ"
        if self.own_position is not None:
            return f"model.position.name={self.own_position.name} makes them differ"
        parts = (self.attention, self.feedforward)
        entries = [nested.entry for part in parts for nested in part.nested()]
        by_layer = [entry.name for entry in entries if entry.gives]
        if by_layer:
            return f"'{by_layer[0]}' gives something to the layers after it"
        calls = [(entry.implementation, 2) for entry in entries] + [(self.block.entry.implementation, 4)]
        classes = [(call, own_count) for call, own_count in calls if isinstance(call, type)]
        random = [
            call.__name__ for call, own_count in classes if "key" in asked_names(call.__call__, own_count)
        ]
        return f"{random[0]} draws random numbers in each of them" if random else None

    @property
    def executed_contexts(self) -> list[LayerContext]:
        """Contexts of the layers in the order in which they are applied."""
        return [self.context(layer) for layer in self.order]

    @property
    def outer_context(self) -> LayerContext:
        """Context of what stands outside of the layers: its index is the number of layers."""
        return self.context(self.shape.layers)

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
        more_fields = {"rope_base": self.config.rope_base, "configured_norm": self.norm}
        return LayerContext(self.shape, layer, self.sequence_length, *norms, *batch, *kernels, **more_fields)
