"""Lowering over an abstract mesh: of a program, or of a stub with its arguments and results, which is enough
to load an executable that another process has compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

Specs = Any
"""Tree of `jax.ShapeDtypeStruct` with named shardings over an abstract mesh."""


def lower_program(
    function: Callable,
    arguments: tuple[Specs, ...],
    overwritten: Sequence[int],
    platform: str,
    results: Specs | None = None,
) -> jax.stages.Lowered:
    """Lower a function, within the context of its mesh. Its traced results tell their shardings, unless they
    are given: without them the compiler would choose. Unused arguments stay, so that a stub has the same."""
    if results is None:
        results = jax.jit(function, donate_argnums=overwritten).trace(*arguments).out_info
    shardings = jax.tree.map(lambda result: result.sharding, results)
    program = jax.jit(function, donate_argnums=overwritten, out_shardings=shardings, keep_unused=True)
    lowering_platform = "cuda" if platform == "gpu" else platform
    return program.trace(*arguments).lower(lowering_platforms=(lowering_platform,))


def lower_stub(
    results: Specs, arguments: tuple[Specs, ...], overwritten: Sequence[int], platform: str
) -> jax.stages.Lowered:
    """Lower a function with these arguments and results that computes nothing, within the context of its
    mesh. A result is an argument of its form, which costs less than a constant."""

    def stub(*values: Any) -> Any:
        pairs = zip(map(_form, jax.tree.leaves(arguments)), jax.tree.leaves(values), strict=True)
        inputs = dict(pairs)
        return jax.tree.map(lambda spec: _value(spec, inputs), results)

    return lower_program(stub, arguments, overwritten, platform, results)


def _value(spec: jax.ShapeDtypeStruct, inputs: dict[Any, Any]) -> Any:
    form = _form(spec)
    if form in inputs:
        return inputs[form]
    return lax.full(spec.shape, 0, spec.dtype, sharding=spec.sharding)


def _form(spec: jax.ShapeDtypeStruct) -> Any:
    return spec.shape, spec.dtype, spec.sharding
