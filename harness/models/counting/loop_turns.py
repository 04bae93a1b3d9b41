"""Integers that a jaxpr tells without being run, and the turns of its loops that follow from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

Constants = Mapping[Any, int]
"""Values of variables that are integers known in advance."""

_EVALUATED: dict[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "max": max,
    "min": min,
    "convert_element_type": int,
    "stop_gradient": int,
}
_COMPARISONS = {"lt": (1, 0), "le": (1, 1), "gt": (-1, 0), "ge": (-1, 1)}
"""Direction in which a counter runs while the comparison with its bound holds, and whether the bound has a
turn of its own."""


def constant_value(atom: Any, constants: Constants) -> int | None:
    """Return the value of a variable or literal; None if it is not an integer known in advance."""
    if not isinstance(atom, Literal):
        return constants.get(atom)
    value = np.asarray(atom.val)
    return int(value) if not value.shape and np.issubdtype(value.dtype, np.integer) else None


def evaluate(equation: Any, constants: Constants) -> dict[Any, int]:
    """Return the value of an equation's output, if it follows from known integers."""
    values = [constant_value(atom, constants) for atom in equation.invars]
    function = _EVALUATED.get(equation.primitive.name)
    if function is None or None in values or not np.issubdtype(equation.outvars[0].aval.dtype, np.integer):
        return {}
    return {equation.outvars[0]: function(*values)}


def inner_constants(variables: Sequence[Any], atoms: Sequence[Any], constants: Constants) -> dict[Any, int]:
    """Return the values of the first variables of an inner jaxpr, which stand for these outer atoms."""
    values = {inner: constant_value(atom, constants) for inner, atom in zip(variables, atoms, strict=False)}
    return {inner: value for inner, value in values.items() if value is not None}


def count_turns(loop: Any, constants: Constants) -> int | None:
    """Return the number of turns of a `while` that counts by a constant step from a known start to a known
    bound; None for any other."""
    params = loop.params
    conditions, bodies = params["cond_nconsts"], params["body_nconsts"]
    condition, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    initial_values = loop.invars[conditions + bodies :]
    fixed = [
        atom if body.outvars[index] is body.invars[bodies + index] else None
        for index, atom in enumerate(initial_values)
    ]
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name not in _COMPARISONS:
        return None
    comparison = condition.eqns[0]
    bounds = inner_constants(condition.invars, [*loop.invars[:conditions], *initial_values], constants)
    counters = condition.invars[conditions:]
    for side in (0, 1):
        counter, bound = comparison.invars[side], comparison.invars[1 - side]
        index = counters.index(counter) if counter in counters else None
        if index is None or fixed[index] is not None or _changes(bound, counters, fixed):
            continue
        start, limit = bounds.get(counter), constant_value(bound, bounds)
        step = _step(body, bodies + index, index)
        if start is not None and limit is not None and step is not None:
            return _turns(start, limit, step, comparison.primitive.name, side)
    return None


def _changes(bound: Any, counters: Sequence[Any], fixed: Sequence[Any]) -> bool:
    return bound in counters and fixed[counters.index(bound)] is None


def _step(body: Any, invar: int, outvar: int) -> int | None:
    """Return the constant that a turn adds to a initial_values counter."""
    for equation in body.eqns:
        if equation.outvars[0] is body.outvars[outvar] and equation.primitive.name in ("add", "sub"):
            first, second = equation.invars
            if first is body.invars[invar]:
                step = constant_value(second, {})
                return step if step is None or equation.primitive.name == "add" else -step
    return None


def _turns(start: int, bound: int, step: int, comparison: str, side: int) -> int | None:
    direction, inclusive = _COMPARISONS[comparison]
    direction = -direction if side else direction
    distance = direction * (bound - start) + inclusive
    if distance <= 0:
        return 0
    return math.ceil(distance / (direction * step)) if direction * step > 0 else None
