"""Checks of a model of a user's own before anything is trained: its loss is a pure float32 function of rows
and parameters, traced the same each time, and every parameter enters it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr

from harness.core.errors import UserError
from harness.models.counting.jaxpr import needed_part, subjaxprs
from harness.models.families.own_build import untraceable
from harness.models.families.own_model import OwnModel
from harness.models.parameters import init_param

MAX_EXECUTED_PARAMETERS = 10_000_000
"""Largest number of parameters of a model that is executed for its causality."""
TOLERANCE = 1e-3
"""Largest difference of a loss, relative to it, when later tokens change."""


def check_own(model: OwnModel, *, causal: bool) -> None:
    """Raise UserError for a loss that a comparison cannot use. `causal`: the loss of a token may read this
    token and those before it."""
    key = f"model.kind={model.spec.config.kind}"
    traces = [_traced_loss(model, key) for _ in range(2)]
    if _text(traces[0]) != _text(traces[1]):
        raise UserError(
            f"{key}: two traces of its loss differ, so it reads or changes something beside its arguments."
            " Make it a function of the rows and the parameters alone."
        )
    if "random_seed" in _primitives(traces[0].jaxpr):
        raise UserError(
            f"{key}: its loss draws random numbers of its own. Ask for `key` in the loss"
            " (`def loss(self, rows_BR, key)`), which is another one at each step."
        )
    _check_shape(model, key, traces[0])
    _check_gradients(model, key, traces[0])
    try:
        jax.eval_shape(model.token_losses, *model.abstract_arguments)
    except Exception as error:  # without a step and a key
        raise untraceable(key, "loss, where it is judged,", error) from error
    if causal and traces[0].out_avals[0].ndim == 2 and model.parameters <= MAX_EXECUTED_PARAMETERS:
        _check_causal(model, key)


def _traced_loss(model: OwnModel, key: str) -> ClosedJaxpr:
    """Return the traced loss. Raises UserError if tracing it fails or leaves something changed."""
    module_class = type(nnx.merge(model._graph, model._abstract))
    before = _snapshot(module_class)

    def loss(params: Any, rows: Any, answers: dict[str, Any]) -> Any:
        module = model.module(params)
        value = module.loss(rows, **answers)
        graph, state = nnx.split(module)
        leaves = [params[path] for path in model.construction.params]
        is_same = all(a is b for a, b in zip(leaves, jax.tree.leaves(state), strict=False))
        if graph != model._graph or len(jax.tree.leaves(state)) != len(leaves) or not is_same:
            raise UserError(
                f"{key}: its loss changes the module, which no run keeps. Return what it computes instead."
            )
        return value

    try:
        trace = jax.make_jaxpr(loss)(*model.abstract_arguments, model.answers(model.first_clock))
    except UserError:
        raise
    except Exception as error:
        raise untraceable(key, "loss", error) from error
    if changed := [name for name, value in _snapshot(module_class).items() if _differs(value, before[name])]:
        raise UserError(
            f"{key}: its loss changes {changed[0]}, a Python side effect that happens once a trace and not"
            " once a step. Keep no state outside of the parameters."
        )
    return trace


def _snapshot(module_class: type) -> dict[str, Any]:
    """Return copies of what the class and its Python module hold, but functions, classes and modules."""
    places = {"": vars(sys.modules[module_class.__module__]), f"{module_class.__name__}.": vars(module_class)}
    values = {start + name: value for start, place in places.items() for name, value in place.items()}
    kinds = (int, float, str, list, dict, set, tuple, type(None))
    return {name: copy.copy(v) for name, v in values.items() if isinstance(v, kinds) and "__" not in name}


def _differs(a: Any, b: Any) -> bool:
    try:
        return bool(a != b)
    except Exception:  # such as arrays, whose comparison is no truth value
        return a is not b


def _text(trace: ClosedJaxpr) -> str:
    """Return a trace as text, with the values of its constants."""
    is_key = (jnp.issubdtype(constant.dtype, jax.dtypes.prng_key) for constant in trace.consts)
    arrays = [c for c, key in zip(trace.consts, is_key, strict=True) if not key]
    return f"{trace.jaxpr}{[np.asarray(array).tobytes() for array in arrays]}"


def _primitives(jaxpr: Any) -> set[str]:
    """Return the names of all primitives of a jaxpr, nested ones included."""
    return {name for equation in jaxpr.eqns for name in _equation_primitives(equation)}


def _equation_primitives(equation: Any) -> Iterator[str]:
    yield equation.primitive.name
    for inner in subjaxprs(equation.params):
        yield from _primitives(inner)


def _check_shape(model: OwnModel, key: str, trace: ClosedJaxpr) -> None:
    """Raise UserError unless the loss is float32, per example or per token."""
    batch, length = model.spec.sequences, model.spec.sequence_length
    due_shape = f"float32 [B] or [B, data.sequence_length] ([{batch}] or [{batch}, {length}])"
    if len(trace.out_avals) != 1:
        raise UserError(f"{key}: its loss returns {len(trace.out_avals)} arrays. Return one, {due_shape}.")
    loss = trace.out_avals[0]
    if loss.dtype != jnp.float32 or loss.shape not in ((batch,), (batch, length)):
        raise UserError(f"{key}: its loss is {loss.dtype} {[*loss.shape]}. Return {due_shape}.")


def _check_gradients(model: OwnModel, key: str, trace: ClosedJaxpr) -> None:
    """Raise UserError for a parameter that the loss does not read."""
    reads = needed_part(trace.jaxpr, [True])[1]
    for path, is_read in zip(sorted(model.stored_specs), reads, strict=False):
        if not is_read:
            raise UserError(f"{key}: {path} does not enter its loss. Use it, or leave it out.")


def _check_causal(model: OwnModel, key: str) -> None:
    """Raise UserError if the loss of a token changes when tokens after it do."""
    length, vocabulary = model.spec.sequence_length, model.shape.vocabulary
    draws = np.random.default_rng(0).integers(0, vocabulary, (2, length + 1), np.int32)
    draws[1, : length // 2 + 1] = draws[0, : length // 2 + 1]
    params = {path: init_param(0, path, spec) for path, spec in model.stored_specs.items()}
    losses_2T = np.asarray(model.token_losses(jax.device_put(params), jnp.asarray(draws)))
    first, second = losses_2T[:, : length // 2]
    if np.max(np.abs(first - second)) > TOLERANCE * (np.max(np.abs(first)) + 1e-12):
        raise UserError(
            f"{key}: its loss at a token changes when later tokens change. Mask them, or register the model"
            " with causal=False if it predicts no next token."
        )
