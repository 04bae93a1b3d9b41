"""Products of bfloat16 factors: near exact ones, in the form that a CPU's matrix unit takes, with bits that
do not depend on devices or cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from harness.core.jax_setup.cpu_flags import MATRIX_UNIT, ONE_MODULE, unknown_flags
from harness.models.layers import matmul, matmul_by_rows
from harness.models.products.matrix_unit import multiply, multiply_transposed, transpose

RNG = np.random.default_rng(0)
needs_flag = pytest.mark.skipif(bool(unknown_flags((MATRIX_UNIT,))), reason="XLA without the flag")


def draw(*shape: int, dtype: Any = jnp.bfloat16) -> Array:
    return jnp.asarray(RNG.normal(size=shape), dtype)


def exact(x: Array) -> np.ndarray:
    """Return the value that a product of bfloat16 factors takes for x."""
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


def error(found: Array, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["multiply", "multiply_transposed"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_and_gradients_are_those_of_rounded_factors(name, dtype):
    """Gradients are rounded once, to the dtype of their factor."""
    x_ZMK, slope_ZMN = draw(2, 3, 40, 24, dtype=dtype), draw(2, 3, 40, 16, dtype=jnp.float32)
    y_ZKN = draw(2, 3, 24, 16)
    rows = name == "multiply_transposed"
    product = multiply_transposed if rows else multiply
    y, vjp = jax.vjp(product, x_ZMK, y_ZKN.swapaxes(-1, -2) if rows else y_ZKN)
    dx, dy = vjp(slope_ZMN)
    dy = dy.swapaxes(-1, -2) if rows else dy
    assert (y.dtype, dx.dtype, dy.dtype) == (jnp.float32, dtype, jnp.bfloat16)
    x, factor, slope = map(exact, (x_ZMK, y_ZKN, slope_ZMN))
    assert error(y, x @ factor) < 1e-6
    assert error(dx, slope @ factor.swapaxes(-1, -2)) < (1e-6 if dtype == jnp.float32 else 3e-3)
    assert error(dy, x.swapaxes(-1, -2) @ slope) < 3e-3


def test_the_product_with_rows_of_a_weight_is_that_with_its_columns():
    x_NI, weight_IO, dy_NO = draw(40, 24), draw(24, 16, dtype=jnp.float32), draw(40, 16, dtype=jnp.float32)
    axes, dtype = (None, None), jnp.dtype(jnp.float32)
    y, vjp = jax.vjp(lambda x, weight: matmul(x, weight, axes, dtype), x_NI, weight_IO)
    rows, rows_vjp = jax.vjp(lambda x, weight: matmul_by_rows(x, weight.T, axes, dtype), x_NI, weight_IO)
    for found, expected in zip((rows, *rows_vjp(dy_NO)), (y, *vjp(dy_NO)), strict=True):
        np.testing.assert_allclose(
            found.astype(jnp.float32), expected.astype(jnp.float32), rtol=1e-2, atol=1e-5
        )
    assert error(y, exact(x_NI) @ exact(weight_IO)) < 1e-6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_transpose_moves_values_unchanged(dtype):
    x_ZMN = draw(2, 5, 7, dtype=dtype).at[0, 0, :3].set(jnp.asarray([jnp.nan, -jnp.inf, -0.0], dtype))
    np.testing.assert_array_equal(
        np.asarray(jax.jit(transpose)(x_ZMN)).view(np.uint8),
        np.ascontiguousarray(np.asarray(x_ZMN).swapaxes(-1, -2)).view(np.uint8),
    )


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    """Return what `gradient_steps` prints with the flags of a matrix unit: on the last of several devices,
    and on the one device of a process with one core."""
    return [train_on(4), train_on(1, "0")]


def train_on(devices: int, *cores: str) -> dict[str, Any]:
    flags = {"XLA_FLAGS": f"{MATRIX_UNIT} {ONE_MODULE}", "JAX_NUM_CPU_DEVICES": str(devices)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.models.gradient_steps", *cores],
        env=os.environ | flags | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@needs_flag
def test_every_product_of_a_step_takes_bfloat16_and_gives_float32(steps):
    """XLA's library computes these on the matrix unit; all others it widens to float32 first."""
    products = steps[0]["bfloat16"]["products"]
    assert len(products) > 40
    assert set(products) == {"bf16 bf16 f32"}
    assert set(steps[0]["float32"]["products"]) == {"f32 f32 f32"}
    assert steps[0]["bfloat16"]["loss"] == pytest.approx(steps[0]["float32"]["loss"], rel=1e-3)


@needs_flag
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bits_depend_on_neither_devices_nor_cores(steps, precision):
    assert steps[0][precision]["bits"] == steps[1][precision]["bits"]
