"""Products whose factors are rounded to fewer bits before they are multiplied."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array

from harness.models.layers import plain_product
from harness.models.products.product_registry import Axes, Product

Rounding = Callable[[Array, int], Array]
"""Function of a matrix and the axis that a product sums over, which returns the matrix of rounded values."""


def straight_through(quantise: Callable[[Array], Array]) -> Product:
    """Return the product with a quantised weight [I, O]. The gradient passes the quantiser unchanged, so the
    float32 weight learns what its quantised value should have (arXiv:1308.3432)."""

    def product(x_NI: Array, weight_IO: Array, axes_IO: Axes) -> Array:
        quantised_IO = weight_IO + jax.lax.stop_gradient(quantise(weight_IO) - weight_IO)
        return plain_product(x_NI, quantised_IO, axes_IO)

    return product


def rounded_product(factor: Rounding, gradient: Rounding) -> Product:
    """Return the product of rounded factors. Its two gradients are products of rounded factors too, each
    along the axis that it sums over: outputs for x, tokens for the weight. `gradient` rounds that of y."""

    def product(x_NI: Array, weight_IO: Array, axes_IO: Axes) -> Array:
        @jax.custom_vjp
        def multiply(x_NI: Array, weight_IO: Array) -> Array:
            return plain_product(factor(x_NI, 1), factor(weight_IO, 0), axes_IO)

        def backward(factors: tuple[Array, Array], dy_NO: Array) -> tuple[Array, Array]:
            x_NI, weight_IO = factors
            dx_NI, _ = _gradients(x_NI, factor(weight_IO, 1), gradient(dy_NO, 1), axes_IO)
            _, dweight_IO = _gradients(factor(x_NI, 0), weight_IO, gradient(dy_NO, 0), axes_IO)
            return dx_NI, dweight_IO

        multiply.defvjp(lambda *factors: (multiply(*factors), factors), backward)
        return multiply(x_NI, weight_IO)

    return product


def _gradients(x_NI: Array, weight_IO: Array, dy_NO: Array, axes_IO: Axes) -> tuple[Array, Array]:
    _, pull_back = jax.vjp(lambda x, weight: plain_product(x, weight, axes_IO), x_NI, weight_IO)
    return pull_back(dy_NO)
