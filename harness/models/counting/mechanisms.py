"""Default costs of a mechanism: the products of its module, traced at the shape of its layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh

from harness.core.errors import UserError
from harness.models.counting.jaxpr import count_function
from harness.models.kernels import CPU
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.sockets.side_inputs import SIDE_INPUTS, SideInputs, asked_names
from harness.models.step_clock import StepClock

NO_MESH = AbstractMesh((), ())


def count_module(module: nnx.Module, apply: Callable[..., Any], *inputs: Any, tokens: int) -> MatmulFlops:
    """Count the FLOPs per token of `apply(module, *inputs)` for abstract inputs of this many tokens, traced
    without a mesh. Raises UserError for a kernel that declares no cost, or a loop of unknown length."""
    graph, state = nnx.split(module)
    with jax.sharding.use_abstract_mesh(NO_MESH):
        count = count_function(lambda state, *inputs: apply(nnx.merge(graph, state), *inputs), state, *inputs)
    if count.kernels:
        raise UserError(f"the kernel {count.kernels[0]} declares no cost (cost_estimate of pallas_call)")
    return MatmulFlops(count.weights / tokens, count.activations / tokens)


def unsharded(context: LayerContext, period: int) -> LayerContext:
    """Return the context at which a layer is counted: full sequences, the kernels of a CPU, and the index of
    the first layer after the first period that is like it."""
    layer = context.layer
    if layer >= 2 * period:
        layer = period + layer % period
    return replace(context, layer=layer, sequence_shards=1, target=CPU)


def count_layer_part(module: Any, context: LayerContext) -> MatmulFlops:
    """Count the products of an attention or a feed-forward layer in the forward pass of one layer."""
    tokens = context.per_device_batch * context.sequence_length
    requests = asked_names(type(module).__call__, 2)
    x_BTD = jax.ShapeDtypeStruct((*_batch_and_time(context), context.shape.width), jnp.float32)

    def apply(module: Any, x_BTD: Any, side_inputs: SideInputs) -> Any:
        return module(x_BTD, **side_inputs.answers(requests, context.layer))

    # What others give is there, unless they come later or in no layer before this one.
    arrays = {name: abstract for name in requests if (abstract := abstract_array(name, context)) is not None}
    first, second = ({}, arrays) if context.layer == 0 else (arrays, {})
    try:
        return count_module(module, apply, x_BTD, abstract_side_inputs(context, first), tokens=tokens)
    except (TypeError, AttributeError, ValueError):
        return count_module(module, apply, x_BTD, abstract_side_inputs(context, second), tokens=tokens)


def count_conditioning(module: Any, context: LayerContext) -> MatmulFlops:
    """Count the products of a conditioning with its modulations, per patch of one layer."""
    B, T = _batch_and_time(context)
    condition_B1D, x_BTD = (
        jax.ShapeDtypeStruct((B, length, context.shape.width), jnp.float32) for length in (1, T)
    )

    def apply(module: Any, condition_B1D: Any, x_BTD: Any) -> Any:
        return [modulation.post(modulation.pre(x_BTD)) for modulation in module(condition_B1D)]

    return count_module(module, apply, condition_B1D, x_BTD, tokens=B * T)


def abstract_side_inputs(context: LayerContext, others_give: Mapping[str, Any]) -> SideInputs:
    """Return what a layer may be told, as shapes and dtypes."""
    B, T = _batch_and_time(context)
    angles_TJ = jax.ShapeDtypeStruct((T, context.shape.head_width // 2), jnp.float32)
    integers_BT = jax.ShapeDtypeStruct((B, T), jnp.int32)
    rotary = Rotary(angles_TJ, angles_TJ, integers_BT if context.documents else None)  # pyright: ignore[reportArgumentType]
    x_BTD = jax.ShapeDtypeStruct((B, T, context.shape.width), jnp.float32)
    scalars = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.float32, jnp.uint32, jnp.int32))
    return SideInputs(rotary, integers_BT, x_BTD, StepClock(*scalars), dict(others_give))  # pyright: ignore[reportArgumentType]


def abstract_array(name: str, context: LayerContext) -> jax.ShapeDtypeStruct | None:
    """Return the shape of an array that another mechanism gives, from the axes in its name: `value_BTHK` is
    [B, T, H, K]. None for a name that can be told without a giver, or without known axes."""
    shape, (B, T) = context.shape, _batch_and_time(context)
    sizes = {"B": B, "T": T, "S": T, "D": shape.width, "H": shape.heads, "G": shape.heads}
    sizes |= {"K": shape.head_width, "F": shape.ffn, "V": shape.vocabulary}
    axes = re.search(r"_([A-Z]+)$", name)
    if name in SIDE_INPUTS or axes is None or not set(axes[1]) <= sizes.keys():
        return None
    return jax.ShapeDtypeStruct(tuple(sizes[axis] for axis in axes[1]), jnp.float32)


def _batch_and_time(context: LayerContext) -> tuple[int, int]:
    return context.per_device_batch, context.sequence_length
