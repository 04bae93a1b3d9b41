"""FLOPs of a traced function: all its products, times the turns of the loops around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.interpreters import partial_eval

from harness.core.errors import UserError
from harness.models.counting.equations import WEIGHTS, equation_flops, equation_group
from harness.models.counting.loop_turns import Constants, count_turns, evaluate, inner_constants


@dataclass(frozen=True)
class ProductCount:
    """FLOPs of a jaxpr by group (`counting.equations`), and what they leave out."""

    weights: int = 0
    activations: int = 0
    kernels: tuple[str, ...] = ()
    """Names of the kernels of libraries that declare no cost: what they execute is not counted."""
    uneven_branches: int = 0
    """Number of `cond` whose branches take different FLOPs; the largest one is counted."""

    @property
    def total(self) -> int:
        """FLOPs of both groups."""
        return self.weights + self.activations

    def __add__(self, other: ProductCount) -> ProductCount:
        kernels = tuple(dict.fromkeys(self.kernels + other.kernels))
        uneven = self.uneven_branches + other.uneven_branches
        return ProductCount(
            self.weights + other.weights, self.activations + other.activations, kernels, uneven
        )

    def __mul__(self, turns: int) -> ProductCount:
        return ProductCount(
            self.weights * turns, self.activations * turns, self.kernels, self.uneven_branches
        )


def count_function(function: Callable[..., Any], *abstract_args: Any) -> ProductCount:
    """Count the products of a function at these abstract arguments, as `count_jaxpr`."""
    return count_jaxpr(jax.make_jaxpr(function)(*abstract_args).jaxpr)


def count_function_flops(function: Callable[..., Any], *abstract_args: Any) -> int:
    """Count the FLOPs of a function at these abstract arguments, as `count_jaxpr`."""
    return count_function(function, *abstract_args).total


def count_jaxpr_flops(jaxpr: Any) -> int:
    """Count the FLOPs of a traced jaxpr, as `count_jaxpr`."""
    return count_jaxpr(jaxpr).total


def count_jaxpr(jaxpr: Any) -> ProductCount:
    """Count the products of a traced jaxpr, times the turns of the loops around them.

    A product whose result is unused is not counted, because XLA removes it. On a mesh, count those of one
    device: devices that hold different shards share a product, and devices that hold the same data each
    execute it. Raises UserError for a `while` around products whose number of turns is not constants.
    """
    return _count(needed_part(jaxpr, [True] * len(jaxpr.outvars))[0], {})


def needed_part(jaxpr: Any, outputs: Sequence[bool]) -> tuple[Any, list[bool]]:
    """Return the part of a jaxpr that these of its outputs need, and which of its inputs that part reads."""
    return partial_eval.dce_jaxpr(jaxpr, list(outputs))


def _count(jaxpr: Any, constants: Constants) -> ProductCount:
    total, values = ProductCount(), dict(constants)
    for equation in jaxpr.eqns:
        total += _count_equation(equation, values)
        values |= evaluate(equation, values)
    return total


def _count_equation(equation: Any, constants: Constants) -> ProductCount:
    name = equation.primitive.name
    flops = equation_flops(equation)
    if flops is not None:
        in_weights = equation_group(equation) == WEIGHTS
        return ProductCount(weights=flops) if in_weights else ProductCount(activations=flops)
    if name in _KERNELS:
        return _count_kernel(equation)
    if name == "while":
        return _count_while(equation, constants)
    if name == "cond":
        return _count_cond(equation, constants)
    if name == "scan":
        loop_constants = equation.invars[: _num_scan_constants(equation.params)]
        inner = equation.params["jaxpr"].jaxpr
        return (
            _count(inner, inner_constants(inner.invars, loop_constants, constants))
            * equation.params["length"]
        )
    return sum(
        (_count(inner, _arguments(inner, equation, constants)) for inner in subjaxprs(equation.params)),
        ProductCount(),
    )


def _num_scan_constants(params: dict[str, Any]) -> int:
    """Return the number of a scan's first operands that all its turns share. JAX 0.12 gives operands as trees
    of constants, carry and slices."""
    return params["num_consts"] if "num_consts" in params else len(params["ft_in"].unpack()[0])


def _arguments(inner: Any, equation: Any, constants: Constants) -> Constants:
    is_call = len(inner.invars) == len(equation.invars)
    return inner_constants(inner.invars, equation.invars, constants) if is_call else {}


_KERNELS = {"pallas_call": "name", "ffi_call": "target_name"}
"""Primitives of kernels, and the parameter with a kernel's name."""


def _count_kernel(equation: Any) -> ProductCount:
    cost = equation.params.get("cost_estimate")
    if cost is not None:
        return ProductCount(activations=int(cost.flops))
    return ProductCount(kernels=(str(equation.params[_KERNELS[equation.primitive.name]]),))


def _count_while(equation: Any, constants: Constants) -> ProductCount:
    params, (conditions, bodies) = equation.params, _constants(equation)
    condition, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    condition_count = _count(condition, inner_constants(condition.invars, conditions, constants))
    turn = _count(body, inner_constants(body.invars, bodies, constants))
    if not (condition_count + turn).total:
        return condition_count + turn
    turns = count_turns(equation, constants)
    if turns is None:
        raise UserError(
            "matrix products inside a `while` cannot be counted, because its number of turns is not known "
            "before it runs. Use jax.lax.scan, or jax.lax.fori_loop with bounds that are constants."
        )
    return turn * turns + condition_count * (turns + 1)


def _constants(equation: Any) -> tuple[list[Any], list[Any]]:
    """Return the constants of the condition and of the body of a `while`."""
    conditions, bodies = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    return equation.invars[:conditions], equation.invars[conditions : conditions + bodies]


def _count_cond(equation: Any, constants: Constants) -> ProductCount:
    branches = [branch.jaxpr for branch in equation.params["branches"]]
    counts = [_count(b, inner_constants(b.invars, equation.invars[1:], constants)) for b in branches]
    largest = max(counts, key=lambda count: count.total)
    kernels = sum((ProductCount(kernels=count.kernels) for count in counts), ProductCount())
    uneven = len({count.total for count in counts}) > 1
    return largest + kernels + ProductCount(uneven_branches=int(uneven))


def subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the jaxprs in an equation's parameters."""
    for value in params.values():
        for candidate in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(candidate, "jaxpr", candidate)
            if hasattr(inner, "eqns"):
                yield inner
