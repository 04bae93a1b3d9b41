"""FLOPs per token: in closed form from the mechanisms' own counts, and counted in a jaxpr."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import partial_eval

from harness.config.schema.run import Remat
from harness.models.mechanism import MatmulFlops
from harness.models.model_spec import ModelSpec

TRAINING_FACTOR = 3
"""Products per forward product in a training step: itself, and backward one for each of its factors."""


def model_flops(spec: ModelSpec) -> float:
    """Return the model FLOPs per trained token: 6 per used weight, plus attention to visible keys."""
    return TRAINING_FACTOR * (sum(_layer_model_flops(spec)) + _head_flops(spec))


def model_flops_last_layers(spec: ModelSpec, layers: int) -> float:
    """Return the model FLOPs per trained token if only the last `layers` layers learn and the embedding is
    frozen: forward through all layers; backward to the inputs and weights of the last ones, and only to the
    inputs of a tied head."""
    head = _head_flops(spec)
    head_backward = head * (0.5 if spec.config.tie_embeddings else 1)
    backward = sum(_layer_model_flops(spec)[spec.shape.layers - layers :]) + head_backward
    return sum(_layer_model_flops(spec)) + head + (TRAINING_FACTOR - 1) * backward


def model_flops_lora(spec: ModelSpec, lora_parameters: float) -> float:
    """Return the model FLOPs per trained token if all weights are frozen and only low-rank factors with
    `lora_parameters` parameters learn, as if x A B were multiplied: 6 per parameter of a factor, 4 per used
    weight (forward, and backward to its input), plus attention to visible keys."""
    products = zip(_layer_model_flops(spec), _layer_matmuls(spec), strict=True)
    layers = sum(
        TRAINING_FACTOR * model - min(model, matmuls.weights + matmuls.final) for model, matmuls in products
    )
    return layers + (TRAINING_FACTOR - 1) * _head_flops(spec) + 2 * TRAINING_FACTOR * lora_parameters


def executed_flops(spec: ModelSpec, remat: Remat) -> float:
    """Return the executed FLOPs per trained token, with rematerialisation and idle turns of a pipeline."""
    return training_flops(forward_flops(spec), _executed_matmuls(spec), remat)


def forward_flops(spec: ModelSpec) -> float:
    """Return the executed FLOPs per token of the forward pass."""
    head = 2.0 * spec.shape.width * spec.table_rows
    return sum(products.total for products in _executed_matmuls(spec)) + head


def _layer_model_flops(spec: ModelSpec) -> list[float]:
    """Return the model FLOPs per token of the forward pass, by layer."""
    attention, feedforward = spec.attention, spec.feedforward
    return [attention.model_flops(context) + feedforward.model_flops(context) for context in spec.contexts]


def _layer_matmuls(spec: ModelSpec) -> list[MatmulFlops]:
    attention, feedforward = spec.attention, spec.feedforward
    return [attention.executed_flops(c) + feedforward.executed_flops(c) for c in spec.contexts]


def _executed_matmuls(spec: ModelSpec) -> list[MatmulFlops]:
    """Return the products of each layer, with those of the turns in which a stage has no micro-batch."""
    return [matmuls * spec.pipeline.executed_share for matmuls in _layer_matmuls(spec)]


def training_flops(forward: float, layers: list[MatmulFlops], remat: Remat, inputs: float = 0.0) -> float:
    """Return the executed FLOPs of a training step: of the forward pass and its gradients, except those of
    the `inputs` products, and of what the backward pass recomputes of each layer."""

    def recomputed(layer: MatmulFlops) -> float:
        full = layer.weights + layer.activations
        return layer.rescored + {Remat.none: 0.0, Remat.dots: layer.activations, Remat.full: full}[remat]

    return TRAINING_FACTOR * forward - inputs + sum(map(recomputed, layers))


def _head_flops(spec: ModelSpec) -> float:
    return 2.0 * spec.shape.width * spec.shape.vocabulary


def count_function_flops(function: Callable[..., Any], *abstract_args: Any) -> int:
    """Count the FLOPs of all matrix products in the function's jaxpr, times the lengths of the enclosing
    scans.

    A product whose result is unused is not counted, because XLA removes it. Raises ValueError for a `while`
    or `cond` that contains products: the jaxpr does not tell how often they run.
    """
    return count_jaxpr_flops(jax.make_jaxpr(function)(*abstract_args).jaxpr)


def count_jaxpr_flops(jaxpr: Any) -> int:
    """Count the FLOPs of a traced jaxpr, as `count_function_flops`, without those of `unread_kernels`. On a
    mesh, return those of one device: devices that hold different shards share a product, and devices that
    hold the same data each execute it."""
    return _count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def unread_kernels(jaxpr: Any) -> list[str]:
    """Return the names of the kernels of libraries in a traced jaxpr: it does not tell what they execute."""
    names: dict[str, None] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name in _KERNELS:
            names[equation.params[_KERNELS[equation.primitive.name]]] = None
        else:
            inner_names = map(unread_kernels, subjaxprs(equation.params))
            names |= dict.fromkeys(itertools.chain(*inner_names))
    return [*names]


_KERNELS = {"pallas_call": "name", "ffi_call": "target_name"}
"""Primitives of kernels, and the parameter with a kernel's name."""


def _count(jaxpr: Any) -> int:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        contracted_size = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * contracted_size * math.prod(equation.outvars[0].aval.shape) // _sharing_devices(equation)
    if name in _KERNELS:
        return 0
    nested = sum(map(_count, subjaxprs(equation.params)))
    if nested and name in ("while", "cond"):
        raise ValueError(f"matrix products inside a {name} cannot be counted")
    return nested * (equation.params["length"] if name == "scan" else 1)


def _sharing_devices(equation: Any) -> int:
    """Return the number of devices that share a product; 1 without a mesh or if shapes are per device."""
    shardings = [operand.aval.sharding for operand in equation.invars]
    entries = [entry for sharding in shardings for entry in sharding.spec if entry]
    axes = {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
    return math.prod(shardings[0].mesh.shape[name] for name in axes)


def subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the jaxprs in an equation's parameters."""
    for value in params.values():
        for candidate in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(candidate, "jaxpr", candidate)
            if hasattr(inner, "eqns"):
                yield inner
