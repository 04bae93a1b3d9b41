"""What a mechanism of a user's own says of itself, tried before anything is trained.

The harness's own mechanisms have tests; one that comes through `imports` has this. A count that is wrong
makes every compute multiplier wrong, and a glimpse of the future makes any loss look good.
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
from harness.models.flops import count_function_flops
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext
from harness.models.model_spec import ModelSpec
from harness.models.parameters import init_param, param_specs
from harness.models.registry import ConfiguredModule

MAX_EXECUTED_PARAMETERS = 10_000_000
"""Parameters of a layer up to which it is tried by running it; a larger one is counted only."""
TOLERANCE = 1e-3
"""Of the answer's size; what sums in another order differs by far less, what looks ahead by far more."""

Apply = Callable[[nnx.State, Array, Rotary], Array]


def check_mechanisms(spec: ModelSpec) -> None:
    """Raises UserError where a mechanism from outside the harness counts what it does not multiply, reads
    later tokens, or reads other documents although the config masks them. Tried on whole sequences."""
    spec = dataclasses.replace(spec, sequence_shards=1)
    for kind, chosen in (("attention", spec.attention), ("feedforward", spec.feedforward)):
        if any(_foreign(each) for each in _nested_modules(chosen)):
            for context in spec.layer_contexts[: spec.period]:
                _check_layer(kind, chosen, context, spec)


def _nested_modules(chosen: ConfiguredModule) -> Iterator[ConfiguredModule]:
    """The mechanism, and those that its options name."""
    yield chosen
    for field in dataclasses.fields(chosen.options):
        value = getattr(chosen.options, field.name)
        for each in value if isinstance(value, tuple) else ():
            yield from _nested_modules(each) if isinstance(each, ConfiguredModule) else ()


def _foreign(chosen: ConfiguredModule) -> bool:
    return chosen.mechanism.module.__module__.partition(".")[0] != "harness"


def _check_layer(kind: str, chosen: ConfiguredModule, context: LayerContext, spec: ModelSpec) -> None:
    module = chosen.build(context)
    graph, state = nnx.split(module)

    def apply(state: nnx.State, x_BTD: Array, rotary: Rotary) -> Array:
        answer = nnx.merge(graph, state)(*((x_BTD, rotary) if kind == "attention" else (x_BTD,)))
        return answer[0] if isinstance(answer, tuple) else answer

    name = f"model.{kind}.name={chosen.mechanism.name}"
    _check_count(name, apply, state, chosen, context, spec)
    if sum(spec.size for spec in param_specs(module).values()) <= MAX_EXECUTED_PARAMETERS:
        drawn = _init_state(module, state)
        _check_causal(name, apply, drawn, context, spec)
        if kind == "attention" and spec.end_token is not None:
            _check_documents(name, apply, drawn, context, spec)


def _check_count(
    name: str,
    apply: Apply,
    state: nnx.State,
    chosen: ConfiguredModule,
    context: LayerContext,
    spec: ModelSpec,
) -> None:
    """Traced with as many sequences as a device takes; nothing is computed."""
    B, T = context.per_device_batch, context.sequence_length
    x_BTD = jax.ShapeDtypeStruct((B, T, context.shape.width), jnp.float32)
    rotary = _rotary(context, spec)
    counted = count_function_flops(lambda state, x_BTD: apply(state, x_BTD, rotary), state, x_BTD) / (B * T)
    said = chosen.executed_flops(context).total
    if abs(said - counted) > 1e-6 * counted:
        raise UserError(
            f"{name}: executed_flops says {said:,.0f} FLOPs a token in layer {context.layer}, but its products "
            f"are {counted:,.0f}: count each product as it is written, 2 x rows x columns, masked parts too"
        )


def _check_causal(name: str, apply: Apply, state: nnx.State, context: LayerContext, spec: ModelSpec) -> None:
    half = context.sequence_length // 2
    rotary = _rotary(context, spec)
    x_BTD, other_BTD = _inputs(context)
    later_BTD = jnp.concatenate([x_BTD[:, :half], other_BTD[:, half:]], axis=1)
    if _differ(apply(state, x_BTD, rotary)[:, :half], apply(state, later_BTD, rotary)[:, :half]):
        raise UserError(
            f"{name}: in layer {context.layer} what it answers to a token depends on later ones: mask them, or "
            "its loss means nothing"
        )


def _check_documents(
    name: str, apply: Apply, state: nnx.State, context: LayerContext, spec: ModelSpec
) -> None:
    half = context.sequence_length // 2
    document_BT = (jnp.arange(context.sequence_length) >= half).astype(jnp.int32)[None]
    rotary = dataclasses.replace(_rotary(context, spec), document_BT=document_BT)
    x_BTD, other_BTD = _inputs(context)
    earlier_BTD = jnp.concatenate([other_BTD[:, :half], x_BTD[:, half:]], axis=1)
    if _differ(apply(state, x_BTD, rotary)[:, half:], apply(state, earlier_BTD, rotary)[:, half:]):
        raise UserError(
            f"{name}: in layer {context.layer} a token sees other documents, but data.mask_documents=true: mask "
            "keys whose rotary.document_BT is another, or leave documents unmasked"
        )


def _rotary(context: LayerContext, spec: ModelSpec) -> Rotary:
    return Rotary.table(context.sequence_length, context.shape.head_width, spec.config.rope_base)


def _inputs(context: LayerContext) -> Iterator[Array]:
    shape = (1, context.sequence_length, context.shape.width)
    noise = np.random.default_rng(0)
    return (jnp.asarray(noise.standard_normal(shape, np.float32)) for _ in range(2))


def _init_state(module: nnx.Module, state: nnx.State) -> nnx.State:
    specs = param_specs(module)
    flat = {
        path: param.replace(jnp.asarray(init_param(0, name, specs[name])))
        for path, param in nnx.to_flat_state(state)
        if (name := ".".join(map(str, path))) in specs
    }
    return nnx.from_flat_state(flat)


def _differ(one: Array, other: Array) -> bool:
    return bool(jnp.max(jnp.abs(one - other)) > TOLERANCE * (jnp.max(jnp.abs(one)) + 1e-12))
