"""Checks of a user's own mechanism, made before anything is trained.

The harness's own mechanisms have tests; a mechanism that comes through `imports` has these checks. A wrong
FLOP count makes every compute multiplier wrong, and a leak of later tokens makes any loss look good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.counting.jaxpr import count_function_flops
from harness.models.kernels import CPU
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext
from harness.models.model_spec import ModelSpec
from harness.models.parameters import count_parameters, init_param, param_specs
from harness.models.registry import ConfiguredModule

MAX_EXECUTED_PARAMETERS = 10_000_000
"""Largest number of parameters of a layer that is executed; only the FLOPs of a larger one are checked."""
TOLERANCE = 1e-3
"""Largest difference between two outputs, relative to their size. Another order of summation differs by far
less, a leak by far more."""

Apply = Callable[[nnx.State, Array, Rotary], Array]


def check_mechanisms(spec: ModelSpec) -> None:
    """Raise UserError if an external mechanism miscounts its FLOPs, depends on later tokens, or reads other
    documents although the config masks them. The checks use unsharded sequences, and the kernels of the CPU
    that they run on."""
    spec = dataclasses.replace(spec, sequence_shards=1, target=CPU)
    for kind, module in (("attention", spec.attention), ("feedforward", spec.feedforward)):
        origins = {
            nested.entry.implementation.__module__.partition(".")[0] for nested in _nested_modules(module)
        }
        if origins != {"harness"}:
            for context in spec.contexts[: spec.period]:
                _check_layer(kind, module, context, spec)


def _nested_modules(module: ConfiguredModule) -> Iterator[ConfiguredModule]:
    """Yield the module and the modules that its options name, recursively."""
    yield module
    for field in dataclasses.fields(module.options):
        value = getattr(module.options, field.name)
        for item in value if isinstance(value, tuple) else ():
            yield from _nested_modules(item) if isinstance(item, ConfiguredModule) else ()


def _check_layer(kind: str, mechanism: ConfiguredModule, context: LayerContext, spec: ModelSpec) -> None:
    module = mechanism.build(context)
    graph, state = nnx.split(module)

    def apply(state: nnx.State, x_BTD: Array, rotary: Rotary) -> Array:
        output = nnx.merge(graph, state)(*((x_BTD, rotary) if kind == "attention" else (x_BTD,)))
        return output[0] if isinstance(output, tuple) else output

    name = f"model.{kind}.name={mechanism.name}"
    _check_flop_count(name, apply, state, mechanism.executed_flops(context).total, context, spec)
    if count_parameters(module) <= MAX_EXECUTED_PARAMETERS:
        params = _init_state(module, state)
        _check_causal(name, apply, params, context, spec)
        if kind == "attention" and spec.end_token is not None:
            _check_documents(name, apply, params, context, spec)


def _check_flop_count(
    name: str, apply: Apply, state: nnx.State, flops: float, context: LayerContext, spec: ModelSpec
) -> None:
    """Compare `executed_flops` with the traced program for the per-device batch; nothing is executed."""
    B, T = context.per_device_batch, context.sequence_length
    x_BTD = jax.ShapeDtypeStruct((B, T, context.shape.width), jnp.float32)
    rotary = _rotary(context, spec)
    expected = count_function_flops(lambda state, x_BTD: apply(state, x_BTD, rotary), state, x_BTD) / (B * T)
    if abs(flops - expected) > 1e-6 * expected:
        raise UserError(
            f"{name}: executed_flops is {flops:,.0f} per token in layer {context.layer}, but the products "
            f"take {expected:,.0f}. Count each product as it is written, 2 x rows x columns, masked parts "
            "too."
        )


def _check_causal(name: str, apply: Apply, state: nnx.State, context: LayerContext, spec: ModelSpec) -> None:
    first_half = slice(0, context.sequence_length // 2)
    if _depends_on_others(apply, state, context, _rotary(context, spec), first_half):
        raise UserError(
            f"{name}: layer {context.layer} is not causal: its output at a token changes when later tokens "
            "change. Mask later tokens."
        )


def _check_documents(
    name: str, apply: Apply, state: nnx.State, context: LayerContext, spec: ModelSpec
) -> None:
    half = context.sequence_length // 2
    document_BT = (jnp.arange(context.sequence_length) >= half).astype(jnp.int32)[None]
    rotary = dataclasses.replace(_rotary(context, spec), document_BT=document_BT)
    if _depends_on_others(apply, state, context, rotary, slice(half, None)):
        raise UserError(
            f"{name}: layer {context.layer}: a token sees other documents, but data.mask_documents=true. "
            "Mask keys whose rotary.document_BT differs, or set data.mask_documents=false."
        )


def _depends_on_others(
    apply: Apply, state: nnx.State, context: LayerContext, rotary: Rotary, tokens: slice
) -> bool:
    """Return whether the outputs at these tokens change when all other tokens do."""
    noise, shape = np.random.default_rng(0), (1, context.sequence_length, context.shape.width)
    x_BTD, other_BTD = (jnp.asarray(noise.standard_normal(shape, np.float32)) for _ in range(2))
    changed_BTD = other_BTD.at[:, tokens].set(x_BTD[:, tokens])
    expected, actual = (apply(state, inputs, rotary)[:, tokens] for inputs in (x_BTD, changed_BTD))
    return bool(jnp.max(jnp.abs(expected - actual)) > TOLERANCE * (jnp.max(jnp.abs(expected)) + 1e-12))


def _rotary(context: LayerContext, spec: ModelSpec) -> Rotary:
    return Rotary.table(context.sequence_length, context.shape.head_width, spec.config.rope_base)


def _init_state(module: nnx.Module, state: nnx.State) -> nnx.State:
    specs = param_specs(module)
    flat = {
        path: param.replace(jnp.asarray(init_param(0, name, specs[name])))
        for path, param in nnx.to_flat_state(state)
        if (name := ".".join(map(str, path))) in specs
    }
    return nnx.from_flat_state(flat)
