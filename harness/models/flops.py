"""FLOPs of one token, in closed form from what each mechanism says, and counted in a jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import partial_eval

from harness.config.schema.run import Remat
from harness.models.mechanism import Products, Shape
from harness.models.model_spec import Blueprint

TRAINED = 3
"""Forward, and one product for each of the two factors of every product backward."""


def model_flops(blueprint: Blueprint) -> float:
    """Model FLOPs of one trained token: 6 a weight in use plus attention to what is visible."""
    return TRAINED * (sum(_each(blueprint)) + _head(blueprint.shape))


def model_flops_above(blueprint: Blueprint, layers: int) -> float:
    """Model FLOPs of one trained token where the last `layers` layers learn and the embedding rests: forward
    through all, backward to the inputs and weights of these, and to the inputs alone of a tied head."""
    head = _head(blueprint.shape)
    backward = sum(_each(blueprint)[blueprint.shape.layers - layers :]) + head * (
        0.5 if blueprint.config.tie_embeddings else 1
    )
    return sum(_each(blueprint)) + head + (TRAINED - 1) * backward


def model_flops_adapted(blueprint: Blueprint, factors: float) -> float:
    """Model FLOPs of one trained token where all weights rest and so many parameters of low-rank factors
    beside them learn, as if x A B were multiplied: 6 a parameter of a factor, 4 a weight in use (forward, and
    backward to its input), and attention to what is visible."""
    products = zip(_each(blueprint), _products(blueprint), strict=True)
    layers = sum(TRAINED * model - min(model, own.weights + own.final) for model, own in products)
    return layers + (TRAINED - 1) * _head(blueprint.shape) + 2 * TRAINED * factors


def executed_flops(blueprint: Blueprint, remat: Remat) -> float:
    """FLOPs of one trained token as the code multiplies them, with what rematerialisation adds."""
    recomputed = sum(again(products, remat) for products in _products(blueprint))
    return TRAINED * forward_flops(blueprint) + recomputed


def forward_flops(blueprint: Blueprint) -> float:
    """FLOPs of one token's forward pass as the code multiplies them."""
    return sum(products.total for products in _products(blueprint)) + _head(blueprint.shape)


def _each(blueprint: Blueprint) -> list[float]:
    """Model FLOPs of one token's forward pass, by layer."""
    attention, feedforward = blueprint.attention, blueprint.feedforward
    return [attention.model_flops(site) + feedforward.model_flops(site) for site in blueprint.sites]


def _products(blueprint: Blueprint) -> list[Products]:
    attention, feedforward = blueprint.attention, blueprint.feedforward
    return [attention.executed_flops(site) + feedforward.executed_flops(site) for site in blueprint.sites]


def again(products: Products, remat: Remat) -> float:
    """What the backward pass multiplies once more of one layer."""
    return (
        products.rescored
        + {
            Remat.none: 0.0,
            Remat.dots: products.activations,
            Remat.full: products.weights + products.activations,
        }[remat]
    )


def _head(shape: Shape) -> float:
    return 2.0 * shape.width * shape.vocabulary


def count_jaxpr(function: Callable[..., Any], *abstract_args: Any) -> int:
    """FLOPs of all matrix products in the function's jaxpr, times the lengths of the scans they stand in.

    A product whose result is not used is left out, as XLA leaves it out.
    Raises ValueError at a `while` or `cond` with products in it: how often those run is not in the jaxpr.
    """
    return count_traced(jax.make_jaxpr(function)(*abstract_args).jaxpr)


def count_traced(jaxpr: Any) -> int:
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
        return 2 * inner * math.prod(equation.outvars[0].aval.shape) // _parts(equation)
    within = sum(map(_count, subjaxprs(equation.params)))
    if within and name in ("while", "cond"):
        raise ValueError(f"matrix products inside a {name} cannot be counted")
    return within * (equation.params["length"] if name == "scan" else 1)


def _parts(equation: Any) -> int:
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
