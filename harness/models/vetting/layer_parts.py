"""Checks of one attention or feed-forward layer at its own size: FLOPs, later tokens, other documents.

A wrong FLOP count makes every compute multiplier wrong, and a leak of later tokens makes any loss look good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.kernels import CPU
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext
from harness.models.model_spec import ModelSpec
from harness.models.parameters import count_parameters, init_param, param_specs
from harness.models.registry import ConfiguredModule
from harness.models.sockets.side_inputs import SideInputs, asked_names
from harness.models.vetting.outside import is_outside

MAX_PARAMETERS = 10_000_000
"""Largest number of parameters of a layer that is executed; only the FLOPs of a larger one are checked."""
MAX_TOKENS = 1024
"""Largest number of tokens of a sequence that is executed."""
TOLERANCE = 1e-3
"""Largest difference between two outputs, relative to their size. Another order of summation differs by far
less, a leak by far more."""

Apply = Callable[[Array, Rotary], Array]


def check_layer_parts(spec: ModelSpec) -> None:
    """Raise UserError if attention or feed-forward layer from outside miscounts its FLOPs, depends on later
    tokens, or reads other documents although the config masks them. The checks use unsharded sequences, and
    the kernels of the CPU that they run on."""
    spec = dataclasses.replace(spec, sequence_shards=1, target=CPU)
    for kind, part in (("attention", spec.attention), ("feedforward", spec.feedforward)):
        if is_outside(part):
            for context in spec.contexts[: spec.period]:
                _check_flop_count(f"model.{kind}.name={part.name}", part, context)
                _check_execution(kind, part, context, spec)


def _check_flop_count(name: str, part: ConfiguredModule, context: LayerContext) -> None:
    """Compare `executed_flops` with the traced program for the per-device batch; nothing is executed."""
    flops, counted_flops = part.executed_flops(context).total, part.counted_flops(context).total
    if abs(flops - counted_flops) > 1e-6 * counted_flops:
        raise UserError(
            f"{name}: executed_flops is {flops:,.0f} per token in layer {context.layer}, but the products "
            f"take {counted_flops:,.0f}. Count each product as it is written, 2 x rows x columns, masked "
            "parts too, or leave executed_flops out."
        )


def _check_execution(kind: str, part: ConfiguredModule, context: LayerContext, spec: ModelSpec) -> None:
    """Check a layer that can be executed alone, because it is told nothing but positions and documents."""
    module = part.build(context)
    requests = asked_names(type(module).__call__, 2)
    if requests.keys() - {"rotary", "document_BT"} or count_parameters(module) > MAX_PARAMETERS:
        return
    executable = _initialised(module)

    def apply(x_BTD: Array, rotary: Rotary) -> Array:
        output = executable(x_BTD, **SideInputs(rotary).answers(requests))
        return output[0] if isinstance(output, tuple) else output

    context = dataclasses.replace(context, sequence_length=min(context.sequence_length, MAX_TOKENS))
    name = f"model.{kind}.name={part.name}: layer {context.layer}"
    _check_causal(name, apply, context, spec)
    if kind == "attention" and spec.end_token is not None:
        _check_documents(name, apply, context, spec)


def _check_causal(name: str, apply: Apply, context: LayerContext, spec: ModelSpec) -> None:
    first_half = slice(0, context.sequence_length // 2)
    if _depends_on_others(apply, context, _rotary(context, spec), first_half):
        raise UserError(
            f"{name} is not causal: its output at a token changes when later tokens change. Mask later"
            " tokens."
        )


def _check_documents(name: str, apply: Apply, context: LayerContext, spec: ModelSpec) -> None:
    half = context.sequence_length // 2
    document_BT = (jnp.arange(context.sequence_length) >= half).astype(jnp.int32)[None]
    rotary = dataclasses.replace(_rotary(context, spec), document_BT=document_BT)
    if _depends_on_others(apply, context, rotary, slice(half, None)):
        raise UserError(
            f"{name}: a token sees other documents, but data.mask_documents=true. "
            "Mask keys whose rotary.document_BT differs, or set data.mask_documents=false."
        )


def _depends_on_others(apply: Apply, context: LayerContext, rotary: Rotary, tokens: slice) -> bool:
    """Return whether the outputs at these tokens change when all other tokens do."""
    noise, shape = np.random.default_rng(0), (1, context.sequence_length, context.shape.width)
    x_BTD, other_BTD = (jnp.asarray(noise.standard_normal(shape, np.float32)) for _ in range(2))
    changed_BTD = other_BTD.at[:, tokens].set(x_BTD[:, tokens])
    expected, actual = (apply(inputs, rotary)[:, tokens] for inputs in (x_BTD, changed_BTD))
    return bool(jnp.max(jnp.abs(expected - actual)) > TOLERANCE * (jnp.max(jnp.abs(expected)) + 1e-12))


def _rotary(context: LayerContext, spec: ModelSpec) -> Rotary:
    return Rotary.table(context.sequence_length, context.shape.head_width, spec.config.rope_base)


def _initialised(module: nnx.Module) -> nnx.Module:
    """Return the module with initial values."""
    graph, state = nnx.split(module)
    specs = param_specs(module)
    flat = {
        path: param.replace(jnp.asarray(init_param(0, name, specs[name])))
        for path, param in nnx.to_flat_state(state)
        if (name := ".".join(map(str, path))) in specs
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))
