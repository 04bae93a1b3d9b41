"""LoRA (arXiv:2106.09685): a matrix W that rests, and beside it a product of two thin ones that learn.

The paper writes W + alpha / rank B A for W x. Here products are x W, so it is W + alpha / rank a b, where a
(the paper's A) is drawn as a weight is, and b starts at zero: the first step computes what W computes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from harness.models import ParamSpec
from harness.parallel.rules import layout
from harness.training.optimizer_muon import contracted_axes

Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Factors:
    """Specs of one layer: `a` has the axes that W contracts and the rank; `b` the rank and those it makes."""

    a: ParamSpec
    b: ParamSpec

    def __iter__(self) -> Iterator[tuple[str, ParamSpec, int]]:
        """Name, spec, and how many leading axes a product with it contracts."""
        yield "a", self.a, len(self.a.shape) - 1
        yield "b", self.b, 1


def factors_of(spec: ParamSpec, rank: int) -> Factors:
    """The factors of one layer's matrix."""
    inner = contracted_axes(spec)
    deviation = 1 / math.sqrt(math.prod(spec.shape[:inner]))
    return Factors(
        ParamSpec((*spec.shape[:inner], rank), (*spec.axes[:inner], None), 0.0, deviation),
        ParamSpec((rank, *spec.shape[inner:]), (None, *spec.axes[inner:]), 0.0, 0.0),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def low_rank(
    a: Float[Array, "*L *I R"], b: Float[Array, "*L R *O"], axes_a: Axes, axes_b: Axes
) -> Float[Array, "*L *I *O"]:
    """a b, layer by layer where both are stacked (first axis `layers`).

    The gradients are written down because left to itself that of b would contract the first axis, whose sum
    hangs on the threads of the process (`models.layers.product`).
    """
    layers, inner, outer = _letters(axes_a, axes_b)
    made = layout(*axes_a[:-1], *axes_b[len(layers) + 1 :])
    return jnp.einsum(f"{layers}{inner}r,{layers}r{outer}->{layers}{inner}{outer}", a, b, out_sharding=made)


def _forward(a: Array, b: Array, axes_a: Axes, axes_b: Axes) -> tuple[Array, tuple[Array, Array]]:
    return low_rank(a, b, axes_a, axes_b), (a, b)


def _backward(axes_a: Axes, axes_b: Axes, kept: tuple[Array, Array], dw: Array) -> tuple[Array, Array]:
    layers, inner, outer = _letters(axes_a, axes_b)
    a, b = kept
    da = jnp.einsum(
        f"{layers}{inner}{outer},{layers}r{outer}->{layers}{inner}r", dw, b, out_sharding=layout(*axes_a)
    )
    a = jax.lax.optimization_barrier(jnp.moveaxis(a, -1, len(layers)))
    db = jnp.einsum(
        f"{layers}r{inner},{layers}{inner}{outer}->{layers}r{outer}", a, dw, out_sharding=layout(*axes_b)
    )
    return da, jax.lax.optimization_barrier(db)


low_rank.defvjp(_forward, _backward)


def _letters(axes_a: Axes, axes_b: Axes) -> tuple[str, str, str]:
    """One letter an axis: of layers, of what W contracts, of what it makes."""
    layers = "l" if axes_a[0] == "layers" else ""
    return layers, "ijk"[: len(axes_a) - len(layers) - 1], "opq"[: len(axes_b) - len(layers) - 1]
