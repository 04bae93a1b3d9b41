"""Check that the stream of a block fits it, from the embedding through the layers to the final norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.counting.mechanisms import NO_MESH, abstract_array, abstract_side_inputs
from harness.models.model_spec import ModelSpec
from harness.models.sockets.side_inputs import SideInputs, SideOutputs, asked_names
from harness.models.text.layer import BLOCK_ARGUMENTS


def check_stream(spec: ModelSpec, dtype: Any = jnp.float32) -> None:
    """Raise UserError if a block of one's own cannot be applied to what its stream opens, gives a mechanism
    something else than x [B, T, D], changes its stream although it is said to scan, or closes to something
    else than x. Nothing is executed; `dtype` is that of the embedding."""
    if spec.block.name == "pre_norm":
        return
    places = spec.order[:1] if spec.block.entry.scans else spec.order
    layers = nnx.List(spec.block.build(spec.context(layer)) for layer in range(spec.shape.layers))
    stream = spec.block.entry.stream
    ends = None if stream is None else stream(spec.outer_context, spec.block.options)
    (graph, state), context = nnx.split((layers, ends)), spec.outer_context
    side_inputs = abstract_side_inputs(context, {name: abstract_array(name, context) for name in spec.gives})
    x_BTD = jax.ShapeDtypeStruct(
        (context.per_device_batch, context.sequence_length, context.shape.width), dtype
    )

    def apply(state: Any, x_BTD: Array, side_inputs: SideInputs) -> Any:
        layers, ends = nnx.merge(graph, state)
        return _Trace(spec, layers, ends, side_inputs, x_BTD).apply(places)

    with jax.sharding.use_abstract_mesh(NO_MESH):
        jax.eval_shape(apply, state, x_BTD, side_inputs)


class _Trace:
    """Pass of the stream through the blocks, with mechanisms that return what they get."""

    def __init__(self, spec: ModelSpec, layers: Any, ends: Any, side_inputs: SideInputs, x_BTD: Array):
        self.layers, self.ends, self.side_inputs, self.x_BTD = layers, ends, side_inputs, x_BTD
        self.key, self.scans = f"model.block.name={spec.block.name}", spec.block.entry.scans

    def apply(self, places: tuple[int, ...]) -> Any:
        """Return what the final norm reads."""
        stream = self._end("open", self.x_BTD)
        for layer in places:
            after = self._layer(layer, stream)
            if self.scans and _shown(after) != _shown(stream):
                raise UserError(
                    f"{self.key} scans, but layer {layer} changes its stream from {_shown(stream)} to"
                    f" {_shown(after)}. Return a stream of the same shapes and dtypes, or register the block"
                    " without scans=True."
                )
            stream = after
        x_BTD = self._end("close", stream)
        if _shown(x_BTD) != _shown(self.x_BTD):
            raise UserError(
                f"{self.key} ends with {_shown(x_BTD)}, but the final norm reads {_shown(self.x_BTD)}. Give"
                " the block a class with `open` and `close` at its registration (stream=...), or return x."
            )
        return x_BTD

    def _layer(self, layer: int, stream: Any) -> Any:
        block = self.layers[layer]
        side_inputs = self.side_inputs.answers(asked_names(type(block).__call__, BLOCK_ARGUMENTS), layer, 2)
        output = self._called(
            lambda: block(stream, self._mechanism("attend"), self._mechanism("feed"), **side_inputs),
            f"layer {layer}",
            stream,
        )
        has_more = isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], SideOutputs)
        return output[0] if has_more else output

    def _end(self, end: str, stream: Any) -> Any:
        if self.ends is None:
            return stream
        call = getattr(type(self.ends), end)
        side_inputs = self.side_inputs.answers(asked_names(call, 2), 0, 4)
        return self._called(lambda: call(self.ends, stream, **side_inputs), f"{end}()", stream)

    def _called(self, call: Any, place: str, stream: Any) -> Any:
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UserError(
                f"{self.key}: {place} cannot be applied to the stream {_shown(stream)}"
                f" ({type(error).__name__}: {reason}). Register the block with the class that opens the"
                " stream it takes (stream=...), or let it take that one."
            ) from error

    def _mechanism(self, name: str) -> Any:
        def mechanism(x_BTD: Any) -> Any:
            if _shown(x_BTD) != _shown(self.x_BTD):
                raise UserError(
                    f"{self.key} calls {name}() with {_shown(x_BTD)}, which takes one x {_shown(self.x_BTD)}."
                    " Choose or mix the parts of the stream that it reads."
                )
            return x_BTD

        return mechanism


def _shown(stream: Any) -> str:
    """Return the shapes and dtypes of a stream, in words."""
    shapes = [jax.typeof(leaf).str_short() for leaf in jax.tree.leaves(stream)]
    return shapes[0] if jax.tree.structure(stream) == jax.tree.structure(0) else f"({', '.join(shapes)})"
