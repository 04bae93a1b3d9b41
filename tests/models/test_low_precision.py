"""Gradients in bfloat16: near float32 however many tokens they are summed over, and over any devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import P

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, Precision, ScaleConfig
from harness.models import build
from harness.models.feedforward.expert_parallel import _grouped_matmul
from harness.models.layers import gather_rounded, matmul
from harness.parallel.sharding.mesh import lane_mesh

VOCABULARY, LENGTH = 64, 32


def model_of(dtype: Precision, batch: int):
    sizes: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "head_width": 16, "ffn": 48}
    config = Config(
        model=ModelConfig(attention=ModuleConfig("mha"), **sizes),
        scale=ScaleConfig("tiny", 1, 1, batch),
        compute=ComputeConfig(dtype=dtype),
        data=DataConfig(sequence_length=LENGTH),
    )
    return build(config, VOCABULARY)


def countable_tokens(batch: int) -> np.ndarray:
    """Sequences that go on by 1 to 3: there is something to learn, so gradients do not average out."""
    rng = np.random.default_rng(0)
    first, steps = rng.integers(0, VOCABULARY, (batch, 1)), rng.integers(1, 4, (batch, LENGTH))
    return ((first + np.pad(steps.cumsum(1), ((0, 0), (1, 0)))) % VOCABULARY).astype(np.int32)


SLOW = [pytest.param(tokens, marks=pytest.mark.slow) for tokens in (2**12, 2**18)]


@pytest.mark.parametrize("tokens", [2**15, *SLOW])
def test_every_gradient_is_within_2_percent(tokens):
    """The embedding's within 1.2 %: a sum in bfloat16 was off by 1.9 % at 33k and 34 % at 262k tokens."""
    rows: Any = countable_tokens(tokens // LENGTH)
    wide, narrow = (model_of(dtype, len(rows)) for dtype in (Precision.float32, Precision.bfloat16))
    exact, gradient = (
        jax.jit(jax.grad(lambda params, model=model: model.loss(params, rows, 0.0)[0]))(wide.init(0))
        for model in (wide, narrow)
    )
    for path, array in exact.items():
        error = float(jnp.linalg.norm(gradient[path] - array) / jnp.linalg.norm(array))
        assert error < (0.012 if path == "embedding" else 0.02), (path, error)


def rounded(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.bfloat16)


def assert_summed_in_float32(gradient, exact):
    """Of a sum of products of bfloat16 numbers; rounded once to bfloat16 it is off by 1e-3."""
    assert gradient.dtype == jnp.float32
    error = np.linalg.norm(np.asarray(gradient, np.float64) - exact) / np.linalg.norm(exact)
    assert error < 1e-5


def test_a_weights_gradient_is_float32_before_the_sum_over_devices():
    rng, mesh = np.random.default_rng(1), lane_mesh(jax.devices(), MeshConfig(2, 4))
    x_NI, dy_NO = rounded(rng, 64, 8), rounded(rng, 64, 16)

    def product(array_IO, x_NI):
        param = nnx.Param(array_IO, axes=("width", None))
        return matmul(x_NI, gather_rounded(param, jnp.bfloat16), (None, None), jnp.dtype(jnp.bfloat16))

    with jax.set_mesh(mesh):
        array_IO = jax.device_put(jnp.ones((8, 16)), P("fsdp", None))
        x_NI, slope_NO = jax.device_put((x_NI, dy_NO), P(("data", "fsdp", "expert"), None))
        gradient = jax.jit(lambda p, x, dy: jax.vjp(product, p, x)[1](dy)[0])(array_IO, x_NI, slope_NO)
    assert_summed_in_float32(gradient, np.asarray(x_NI, np.float64).T @ np.asarray(dy_NO, np.float64))


def test_an_experts_gradient_is_float32():
    rng = np.random.default_rng(2)
    x_ZRI, dy_ZRO, weight_ZIO = rounded(rng, 2, 64, 8), rounded(rng, 2, 64, 16), jnp.ones((2, 8, 16))
    gradient = jax.vjp(_grouped_matmul, x_ZRI, weight_ZIO)[1](dy_ZRO)[1]
    exact = np.swapaxes(np.asarray(x_ZRI, np.float64), 1, 2) @ np.asarray(dy_ZRO, np.float64)
    assert_summed_in_float32(gradient, exact)
