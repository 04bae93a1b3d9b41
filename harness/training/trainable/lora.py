"""LoRA (arXiv:2106.09685): a frozen matrix W plus a trainable product of two thin matrices.

The paper writes W + alpha / rank B A for W x. Products here are x W, so the sum is W + alpha / rank a b.
`a` (the paper's A) is drawn like a weight, and `b` starts at zero: the first step computes what W computes.
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
from harness.models.initialisation.draw import Draw
from harness.models.parameters import expert_matrix, num_contracted_axes
from harness.parallel.sharding.axis_rules import out_sharding

Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class LoraFactors:
    """Specs of the two factors of one layer's matrix W. `a` has the axes that W contracts, then the rank;
    `b` the rank, then W's output axes. Factors of experts have the expert axis first."""

    a: ParamSpec
    b: ParamSpec

    def __iter__(self) -> Iterator[tuple[str, ParamSpec, int]]:
        """Yield name, spec, and the number of leading axes (of one expert) that a product contracts."""
        yield "a", self.a, len(expert_matrix(self.a).shape) - 1
        yield "b", self.b, 1


def make_factors(spec: ParamSpec, rank: int) -> LoraFactors:
    """Build the factor specs of one layer's matrix, or of its experts' matrices."""
    matrix = expert_matrix(spec)
    lead, inner = len(spec.shape) - len(matrix.shape), num_contracted_axes(matrix)
    start, axes = spec.shape[:lead], spec.axes[:lead]
    fan_in = math.prod(matrix.shape[:inner])
    return LoraFactors(
        ParamSpec(
            (*start, *matrix.shape[:inner], rank),
            (*axes, *matrix.axes[:inner], None),
            Draw("normal", 1 / math.sqrt(fan_in)),
            fan_in,
            decays=True,
        ),
        ParamSpec(
            (*start, rank, *matrix.shape[inner:]),
            (*axes, None, *matrix.axes[inner:]),
            Draw(),
            rank,
            decays=True,
        ),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lora_product(
    a: Float[Array, "*Z *I R"], b: Float[Array, "*Z R *O"], axes_a: Axes, axes_b: Axes
) -> Float[Array, "*Z *I *O"]:
    """Compute a b, one product per layer and per expert. The gradients are written out: autodiff would
    contract the first axis for b, and the bits of that sum depend on the number of threads of the process
    (`models.layers.product`)."""
    lead, inner, outer = _einsum_letters(axes_a, axes_b)
    sharding = out_sharding(*axes_a[:-1], *axes_b[len(lead) + 1 :])
    return jnp.einsum(f"{lead}{inner}r,{lead}r{outer}->{lead}{inner}{outer}", a, b, out_sharding=sharding)


def _forward(a: Array, b: Array, axes_a: Axes, axes_b: Axes) -> tuple[Array, tuple[Array, Array]]:
    return lora_product(a, b, axes_a, axes_b), (a, b)


def _backward(axes_a: Axes, axes_b: Axes, residuals: tuple[Array, Array], dw: Array) -> tuple[Array, Array]:
    lead, inner, outer = _einsum_letters(axes_a, axes_b)
    a, b = residuals
    equation = f"{lead}{inner}{outer},{lead}r{outer}->{lead}{inner}r"
    da = jnp.einsum(equation, dw, b, out_sharding=out_sharding(*axes_a))
    a = jax.lax.optimization_barrier(jnp.moveaxis(a, -1, len(lead)))
    equation = f"{lead}r{inner},{lead}{inner}{outer}->{lead}r{outer}"
    db = jnp.einsum(equation, a, dw, out_sharding=out_sharding(*axes_b))
    return da, jax.lax.optimization_barrier(db)


lora_product.defvjp(_forward, _backward)


def _einsum_letters(axes_a: Axes, axes_b: Axes) -> tuple[str, str, str]:
    """Return einsum letters of the layer and expert axes, of W's inputs, and of W's outputs."""
    lead = "le"[: sum(axis in ("layers", "experts") for axis in axes_a)]
    return lead, "ijk"[: len(axes_a) - len(lead) - 1], "opq"[: len(axes_b) - len(lead) - 1]
