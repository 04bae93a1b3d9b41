"""The gate of a feed-forward layer, silu(gate) * up, with a gradient that keeps its two arguments alone."""

from __future__ import annotations

import jax
from jax import Array


@jax.custom_vjp
def silu_gate(gate: Array, up: Array) -> Array:
    """Return silu(gate) * up. Its gradient needs both arguments, which the products before it made; by
    default it keeps silu(gate) and sigmoid(gate) too, each of which is written and read again."""
    return jax.nn.silu(gate) * up


def _forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    return silu_gate(gate, up), (gate, up)


def _backward(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    gate, up = residuals
    share = jax.nn.sigmoid(gate)
    return slope * up * (share * (1 + gate * (1 - share))), slope * (gate * share)


silu_gate.defvjp(_forward, _backward)
