"""FLOPs of one token, in closed form from what each mechanism says, and counted in a jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import partial_eval

from harness.config.schema.run import Remat
from harness.models.mechanism import MatmulFlops, ModelDims
from harness.models.model_spec import ModelSpec

TRAINING_FACTOR = 3
"""Forward, and one product for each of the two factors of every product backward."""


def model_flops(spec: ModelSpec) -> float:
    """Model FLOPs of one trained token: 6 a weight in use plus attention to what is visible."""
    return TRAINING_FACTOR * (sum(_layer_model_flops(spec)) + _head_flops(spec.shape))


def model_flops_last_layers(spec: ModelSpec, layers: int) -> float:
    """Model FLOPs of one trained token where the last `layers` layers learn and the embedding rests: forward
    through all, backward to the inputs and weights of these, and to the inputs alone of a tied head."""
    head = _head_flops(spec.shape)
    backward = sum(_layer_model_flops(spec)[spec.shape.layers - layers :]) + head * (
        0.5 if spec.config.tie_embeddings else 1
    )
    return sum(_layer_model_flops(spec)) + head + (TRAINING_FACTOR - 1) * backward


def model_flops_lora(spec: ModelSpec, lora_parameters: float) -> float:
    """Model FLOPs of one trained token where all weights rest and so many parameters of low-rank factors
    beside them learn, as if x A B were multiplied: 6 a parameter of a factor, 4 a weight in use (forward, and
    backward to its input), and attention to what is visible."""
    products = zip(_layer_model_flops(spec), _layer_matmuls(spec), strict=True)
    layers = sum(TRAINING_FACTOR * model - min(model, own.weights + own.final) for model, own in products)
    return layers + (TRAINING_FACTOR - 1) * _head_flops(spec.shape) + 2 * TRAINING_FACTOR * lora_parameters


def executed_flops(spec: ModelSpec, remat: Remat) -> float:
    """FLOPs of one trained token as the code multiplies them, with what rematerialisation adds."""
    recomputed = sum(rematerialised_flops(products, remat) for products in _layer_matmuls(spec))
    return TRAINING_FACTOR * forward_flops(spec) + recomputed


def forward_flops(spec: ModelSpec) -> float:
    """FLOPs of one token's forward pass as the code multiplies them."""
    return sum(products.total for products in _layer_matmuls(spec)) + _head_flops(spec.shape)


def _layer_model_flops(spec: ModelSpec) -> list[float]:
    """Model FLOPs of one token's forward pass, by layer."""
    attention, feedforward = spec.attention, spec.feedforward
    return [
        attention.model_flops(context) + feedforward.model_flops(context) for context in spec.layer_contexts
    ]


def _layer_matmuls(spec: ModelSpec) -> list[MatmulFlops]:
    attention, feedforward = spec.attention, spec.feedforward
    return [
        attention.executed_flops(context) + feedforward.executed_flops(context)
        for context in spec.layer_contexts
    ]


def rematerialised_flops(products: MatmulFlops, remat: Remat) -> float:
    """What the backward pass multiplies once more of one layer."""
    return (
        products.rescored
        + {
            Remat.none: 0.0,
            Remat.dots: products.activations,
            Remat.full: products.weights + products.activations,
        }[remat]
    )


def _head_flops(shape: ModelDims) -> float:
    return 2.0 * shape.width * shape.vocabulary


def count_function_flops(function: Callable[..., Any], *abstract_args: Any) -> int:
    """FLOPs of all matrix products in the function's jaxpr, times the lengths of the scans they stand in.

    A product whose result is not used is left out, as XLA leaves it out.
    Raises ValueError at a `while` or `cond` with products in it: how often those run is not in the jaxpr.
    """
    return count_jaxpr_flops(jax.make_jaxpr(function)(*abstract_args).jaxpr)


def count_jaxpr_flops(jaxpr: Any) -> int:
    """The same of what was traced already; on a mesh that of one device: a product is shared among those that
    its operands are split over, and done by each of the others."""
    return _count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _count(jaxpr: Any) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape) // _sharing_devices(equation)
    within = sum(map(_count, subjaxprs(equation.params)))
    if within and name in ("while", "cond"):
        raise ValueError(f"matrix products inside a {name} cannot be counted")
    return within * (equation.params["length"] if name == "scan" else 1)


def _sharing_devices(equation: Any) -> int:
    """Devices that share a product; 1 off a mesh, and where shapes are a device's own already."""
    shardings = [operand.aval.sharding for operand in equation.invars]
    entries = [entry for sharding in shardings for entry in sharding.spec if entry]
    axes = {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
    return math.prod(shardings[0].mesh.shape[name] for name in axes)


def subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Those that stand in an equation with these parameters."""
    for value in params.values():
        for candidate in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(candidate, "jaxpr", candidate)
            if hasattr(inner, "eqns"):
                yield inner
