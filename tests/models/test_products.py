"""Products of a user's own: chosen by name, with gradients past the quantiser, rounded along each sum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ProductsConfig
from harness.core.errors import UserError
from harness.models.layers import plain_product
from harness.models.products.product_registry import PRODUCTS, product_of, register_product
from harness.models.products.rounded_factors import rounded_product, straight_through
from tests.models.test_fp8 import loss_and_gradient, model_of

RNG = np.random.default_rng(0)
X, WEIGHT, DY = (RNG.normal(size=shape).astype(np.float32) for shape in ((40, 24), (24, 16), (40, 16)))


@pytest.fixture
def signs():
    """The product with the signs of the weight."""
    register_product("signs")(straight_through(jnp.sign))
    yield "signs"
    del PRODUCTS.entries["signs"]


def value_and_gradients(product: Any) -> tuple[np.ndarray, ...]:
    y, vjp = jax.vjp(lambda x, weight: product(x, weight, (None, None)), jnp.asarray(X), jnp.asarray(WEIGHT))
    return y, *vjp(jnp.asarray(DY))


def assert_close(found: tuple[Any, ...], expected: tuple[np.ndarray, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_the_gradient_passes_the_quantiser_unchanged():
    """That of x sees the quantised weight; that of the weight is as if it were not quantised."""
    quantised = np.sign(WEIGHT)
    found = value_and_gradients(straight_through(jnp.sign))
    assert_close(found, (X @ quantised, DY @ quantised.T, X.T @ DY))


def rounded(x: np.ndarray, axis: int) -> np.ndarray:
    """8 bits relative to the largest value along an axis, so that the axis counts."""
    largest = np.abs(x).max(axis=axis, keepdims=True)
    return ((x / largest).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * largest).astype(np.float64)


def test_each_product_rounds_its_factors_along_its_own_sum():
    def in_jax(x: jax.Array, axis: int) -> jax.Array:
        largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
        return (x / largest).astype(jnp.float8_e4m3fn).astype(jnp.float32) * largest

    twice = lambda x, axis: 2 * in_jax(x, axis)  # noqa: E731
    found = value_and_gradients(rounded_product(in_jax, twice))
    y = rounded(X, 1) @ rounded(WEIGHT, 0)
    dx = 2 * rounded(DY, 1) @ rounded(WEIGHT, 1).T
    dweight = 2 * rounded(X, 0).T @ rounded(DY, 0)
    assert_close(found, (y, dx, dweight))


def test_the_plain_product_is_that_of_numpy():
    assert_close(value_and_gradients(plain_product), (X @ WEIGHT, DY @ WEIGHT.T, X.T @ DY))


def test_only_the_named_part_has_the_product(signs):
    params: Any = model_of(ProductsConfig()).init(0)
    module: Any = model_of(ProductsConfig(attention=signs)).module(params)
    names = {name: product_of(getattr(module.layers[0].attention, name)).name for name in ("query", "output")}
    assert names == {"query": "signs", "output": "signs"}
    assert product_of(module.layers[0].feedforward.up).name == "dtype"


def test_no_mesh_changes_the_product(signs):
    products, mesh = ProductsConfig(signs, signs), MeshConfig(data=2, fsdp=2, tensor=2)
    one = loss_and_gradient(model_of(products), MeshConfig())
    many = loss_and_gradient(model_of(products, mesh=mesh), mesh)
    np.testing.assert_allclose(many[0], one[0], rtol=1e-5)
    for path, gradient in one[1].items():
        np.testing.assert_allclose(many[1][path], gradient, rtol=1e-4, atol=1e-5, err_msg=path)


def test_eight_bit_products_are_counted(signs):
    assert model_of(ProductsConfig(signs, signs)).fp8_parameters == 0
    assert model_of(ProductsConfig("fp8", "dtype")).fp8_parameters == 2 * 4 * 32 * 32


def test_unknown_names_and_experts_are_refused(signs):
    with pytest.raises(UserError, match=r"compute\.products\.attention=fp9 is not registered: did you mean"):
        model_of(ProductsConfig(attention="fp9"))
    with pytest.raises(UserError, match=r"compute\.products\.feedforward=signs: the grouped products of"):
        model_of(ProductsConfig(feedforward=signs), "moe")
