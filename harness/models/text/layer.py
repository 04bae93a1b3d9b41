"""A layer of the decoder: a block with its two mechanisms, applied to the residual stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext, RouterStats
from harness.models.model_spec import ModelSpec
from harness.models.products.product_registry import use_product
from harness.models.sockets.entries import ConfiguredSocket
from harness.models.sockets.side_inputs import SIDE_INPUTS, SideInputs, SideOutputs, asked_names, check_names
from harness.parallel.sharding.sequence_parallel import all_gather_sequence, local_shard

BLOCK_ARGUMENTS = 4
"""Number of a block's own arguments: self, stream, attend, feed."""


class Carry(NamedTuple):
    """Arrays that go from layer to layer: the residual stream, and the arrays that mechanisms gave."""

    stream: Any
    given_arrays: dict[str, Array]


class LayerStatistics(NamedTuple):
    """Statistics of one layer; None is what it has not."""

    router: RouterStats | None = None
    auxiliary: Array | None = None
    """Sum of the terms that its mechanisms add to the training loss."""


@dataclass(frozen=True)
class LayerFacts:
    """Facts that a layer's call needs, beside its parameters."""

    context: LayerContext
    position: ConfiguredSocket | None
    """Frequencies of this layer; None: those that all layers share."""
    attention_is_sharded: bool
    feedforward_is_sharded: bool
    gives: tuple[str, ...]
    """Names that mechanisms of this model give."""


def build_layer(spec: ModelSpec, layer: int) -> nnx.Module:
    """Build the block of a layer, with `attention` and `feedforward` as its parts. Raises UserError if one of
    them asks for what nothing tells it."""
    context = spec.context(layer)
    block = spec.block.build(context)
    block.attention = spec.attention.build(context)
    block.feedforward = spec.feedforward.build(context)
    block.facts = LayerFacts(
        context,
        spec.own_position,
        spec.attention.supports_sequence_parallel(context),
        spec.feedforward.supports_sequence_parallel(context),
        spec.gives,
    )
    for part in ("attention", "feedforward"):
        use_product(getattr(block, part), getattr(spec.products, part), f"compute.products.{part}")
    for key, requests in layer_requests(spec, block):
        check_names(key, requests, spec.gives, SIDE_INPUTS)
    return block


def layer_requests(spec: ModelSpec, layer: Any) -> Iterator[tuple[str, Mapping[str, bool]]]:
    """Yield the config key of each part of a layer and the names that it asks for."""
    yield f"model.block.name={spec.block.name}", asked_names(type(layer).__call__, BLOCK_ARGUMENTS)
    yield f"model.attention.name={spec.attention.name}", asked_names(type(layer.attention).__call__, 2)
    yield f"model.feedforward.name={spec.feedforward.name}", asked_names(type(layer.feedforward).__call__, 2)


def apply_layer(
    layer: Any, carry: Carry, side_inputs: SideInputs, visit: int = 0
) -> tuple[Carry, LayerStatistics | None]:
    """Apply a layer to the carry. Return the new carry and the layer's statistics, None if it has none."""
    side_inputs = replace(side_inputs, visit=visit, rotary=_rotary(layer.facts, side_inputs))
    branches = _LayerBranches(layer, side_inputs, dict(carry.given_arrays))
    names = asked_names(type(layer).__call__, BLOCK_ARGUMENTS)
    answers = branches.current_side_inputs().of_shard().answers(names, layer.facts.context.layer, 2)
    output = layer(carry.stream, branches.attend, branches.feed, **answers)
    stream, statistics = branches.take(output)
    return Carry(stream, branches.given_arrays), branches.statistics(statistics)


class _LayerBranches:
    """The two mechanisms of a layer as functions of [B, T, D], and what they return beside their output."""

    def __init__(self, layer: Any, side_inputs: SideInputs, given_arrays: dict[str, Array]):
        self.layer, self.side_inputs, self.given_arrays = layer, side_inputs, given_arrays
        self.router: RouterStats | None = None
        self.auxiliary: list[Array] = []

    def attend(self, x_BTD: Array) -> Array:
        """Apply attention to this device's shard of x."""
        return self._apply(self.layer.attention, x_BTD, self.layer.facts.attention_is_sharded, 0)

    def feed(self, x_BTD: Array) -> Array:
        """Apply the feed-forward layer to this device's shard of x."""
        return self._apply(self.layer.feedforward, x_BTD, self.layer.facts.feedforward_is_sharded, 1)

    def _apply(self, module: Any, x_BTD: Array, is_sharded: bool, part: int) -> Array:
        side_inputs = self.current_side_inputs()
        side_inputs = side_inputs.of_shard() if is_sharded else side_inputs.of_full_sequence()
        names = asked_names(type(module).__call__, 2)
        answers = side_inputs.answers(names, self.layer.facts.context.layer, part)
        x_BTD = x_BTD if is_sharded else all_gather_sequence(x_BTD)
        y_BTD, extras = self.take(module(x_BTD, **answers), None if is_sharded else local_shard)
        if isinstance(extras, RouterStats):
            self.router = extras
        elif extras is not None:
            self.auxiliary.append(extras)
        return y_BTD if is_sharded else local_shard(y_BTD)

    def current_side_inputs(self) -> SideInputs:
        """Return what a mechanism is told after those before it."""
        return replace(self.side_inputs, given_arrays=self.side_inputs.given_arrays | self.given_arrays)

    def take(self, output: Any, to_shard: Any = None) -> tuple[Any, Any]:
        """Split an output into the value and what comes with it: router statistics, or an auxiliary loss.
        Keep what it gives."""
        if not (isinstance(output, tuple) and len(output) == 2):
            return output, None
        value, extras = output
        if isinstance(extras, RouterStats):
            return value, extras
        if not isinstance(extras, SideOutputs):
            return output, None
        for name, array in extras.gives.items():
            if name not in self.layer.facts.gives:
                raise UserError(
                    f"A mechanism of layer {self.layer.facts.context.layer} gives '{name}', which no"
                    f" registration declares. Register it with gives=('{name}',)."
                )
            self.given_arrays[name] = to_shard(array) if to_shard else array
        return value, extras.auxiliary

    def statistics(self, auxiliary: Array | None) -> LayerStatistics | None:
        """Return the layer's statistics, with the auxiliary loss of its block."""
        terms = [*self.auxiliary, *([] if auxiliary is None else [auxiliary])]
        if self.router is None and not terms:
            return None
        return LayerStatistics(self.router, sum(terms[1:], terms[0]) if terms else None)


def _rotary(facts: LayerFacts, side_inputs: SideInputs) -> Rotary:
    """Return the rotation of a layer."""
    if facts.position is None:
        return side_inputs.rotary
    position = facts.position
    names = asked_names(position.entry.implementation, 2)
    table = position.entry.implementation(facts.context, position.options, **side_inputs.answers(names))
    frequency_J, scale = table if isinstance(table, tuple) else (table, 1.0)
    length = side_inputs.rotary.cos_TJ.shape[0]
    rotary = Rotary.of_frequencies(length, frequency_J, scale)
    return rotary.with_documents(side_inputs.rotary.document_BT)
