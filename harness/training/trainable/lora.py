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
from harness.models.mup import one_expert
from harness.parallel.sharding.axis_rules import layout
from harness.training.optimizers.muon import contracted_axes

Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Factors:
    """Specs of one layer: `a` has the axes that W contracts and the rank; `b` the rank and those it makes.
    Those of experts stand behind the axis of these."""

    a: ParamSpec
    b: ParamSpec

    def __iter__(self) -> Iterator[tuple[str, ParamSpec, int]]:
        """Name, spec, and how many leading axes (of one expert) a product with it contracts."""
        yield "a", self.a, len(one_expert(self.a).shape) - 1
        yield "b", self.b, 1


def factors_of(spec: ParamSpec, rank: int) -> Factors:
    """The factors of one layer's matrix, or of its experts' matrices."""
    one = one_expert(spec)
    lead, inner = len(spec.shape) - len(one.shape), contracted_axes(one)
    start, axes = spec.shape[:lead], spec.axes[:lead]
    deviation = 1 / math.sqrt(math.prod(one.shape[:inner]))
    return Factors(
        ParamSpec((*start, *one.shape[:inner], rank), (*axes, *one.axes[:inner], None), 0.0, deviation),
        ParamSpec((*start, rank, *one.shape[inner:]), (*axes, None, *one.axes[inner:]), 0.0, 0.0),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def low_rank(
    a: Float[Array, "*Z *I R"], b: Float[Array, "*Z R *O"], axes_a: Axes, axes_b: Axes
) -> Float[Array, "*Z *I *O"]:
    """a b, by layer and by expert where both hold several.

    The gradients are written down because left to itself that of b would contract the first axis, whose sum
    hangs on the threads of the process (`models.layers.product`).
    """
    lead, inner, outer = _letters(axes_a, axes_b)
    made = layout(*axes_a[:-1], *axes_b[len(lead) + 1 :])
    return jnp.einsum(f"{lead}{inner}r,{lead}r{outer}->{lead}{inner}{outer}", a, b, out_sharding=made)


def _forward(a: Array, b: Array, axes_a: Axes, axes_b: Axes) -> tuple[Array, tuple[Array, Array]]:
    return low_rank(a, b, axes_a, axes_b), (a, b)


def _backward(axes_a: Axes, axes_b: Axes, kept: tuple[Array, Array], dw: Array) -> tuple[Array, Array]:
    lead, inner, outer = _letters(axes_a, axes_b)
    a, b = kept
    da = jnp.einsum(
        f"{lead}{inner}{outer},{lead}r{outer}->{lead}{inner}r", dw, b, out_sharding=layout(*axes_a)
    )
    a = jax.lax.optimization_barrier(jnp.moveaxis(a, -1, len(lead)))
    db = jnp.einsum(
        f"{lead}r{inner},{lead}{inner}{outer}->{lead}r{outer}", a, dw, out_sharding=layout(*axes_b)
    )
    return da, jax.lax.optimization_barrier(db)


low_rank.defvjp(_forward, _backward)


def _letters(axes_a: Axes, axes_b: Axes) -> tuple[str, str, str]:
    """One letter an axis: of layers and experts, of what W contracts, of what it makes."""
    lead = "le"[: sum(axis in ("layers", "experts") for axis in axes_a)]
    return lead, "ijk"[: len(axes_a) - len(lead) - 1], "opq"[: len(axes_b) - len(lead) - 1]
