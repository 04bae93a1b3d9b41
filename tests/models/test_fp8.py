"""Products in 8 bits: against numpy's, the same on any mesh, and only where the config asks for them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    ModelConfig,
    ModuleConfig,
    ProductsConfig,
    Remat,
    ScaleConfig,
)
from harness.core.errors import UserError
from harness.models import build
from harness.models.products.fp8 import fp8_matmul
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh

VOCABULARY, LENGTH, BATCH = 64, 16, 8
BOTH = ProductsConfig("fp8", "fp8")


def model_of(
    products: ProductsConfig, feedforward: str = "swiglu", mesh: MeshConfig | None = None, **compute: Any
):
    sizes: dict[str, Any] = {"width": 32, "layers": 2, "heads": 4, "head_width": 8, "ffn": 48}
    config = Config(
        model=ModelConfig(ModuleConfig("mha"), ModuleConfig(feedforward), **sizes),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(products=products, **compute),
        data=DataConfig(sequence_length=LENGTH),
        mesh=mesh or MeshConfig(),
    )
    return build(config, VOCABULARY)


def rounded(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x in an 8-bit dtype, scaled so that its largest value is the dtype's."""
    scale = np.float32(np.abs(x).max()) / np.float32(ml_dtypes.finfo(dtype).max)
    return (x / scale).astype(dtype).astype(np.float64) * scale


def test_product_and_gradients_equal_numpys():
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.normal(size=shape).astype(np.float32) for shape in ((40, 24), (24, 16), (40, 16)))
    y, vjp = jax.vjp(
        lambda x, weight: fp8_matmul(x, weight, (None, None)), jnp.asarray(x), jnp.asarray(weight)
    )
    x8, weight8 = (rounded(array, ml_dtypes.float8_e4m3fn) for array in (x, weight))
    dy8 = rounded(dy, ml_dtypes.float8_e5m2)
    expected = x8 @ weight8, dy8 @ weight8.T, x8.T @ dy8
    for ours, theirs in zip((y, *vjp(jnp.asarray(dy))), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_zeros_stay_and_what_is_not_finite_shows():
    weight = jnp.ones((4, 3))
    assert not fp8_matmul(jnp.zeros((2, 4)), weight, (None, None)).any()
    assert jnp.isnan(fp8_matmul(jnp.full((2, 4), jnp.inf), weight, (None, None))).any()


def loss_and_gradient(model: Any, mesh: MeshConfig):
    rows = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1)).astype(np.int32)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        params = jax.device_put(model.init(0), param_shardings(lane, model.stored_specs))
        tokens = jax.device_put(rows, batch_sharding(lane, BATCH))
        function = jax.jit(jax.value_and_grad(lambda params: model.loss(params, tokens, 0.0)[0]))
        return jax.device_get(function(params))


@pytest.mark.parametrize("mesh", [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(context=2)], ids=str)
def test_no_mesh_changes_the_scales(mesh):
    compute = {"scan_layers": True, "remat": Remat.dots}
    one = loss_and_gradient(model_of(BOTH, **compute), MeshConfig())
    many = loss_and_gradient(model_of(BOTH, mesh=mesh, **compute), mesh)
    np.testing.assert_allclose(many[0], one[0], rtol=1e-5)
    for path, gradient in one[1].items():
        # A value at the middle of two 8-bit neighbours may fall either way: a step of a few values.
        error = np.linalg.norm(many[1][path] - gradient) / np.linalg.norm(gradient)
        assert error < 0.02, (path, error)


def test_only_the_named_part_has_8_bits():
    products = {"attention": "fp8"}

    def products_in_8_bits(products: ProductsConfig) -> int:
        model = model_of(products)
        rows = jnp.zeros((BATCH, LENGTH + 1), jnp.int32)
        text = str(jax.make_jaxpr(lambda params: model.loss(params, rows, 0.0)[0])(model.init(0)))
        return text.count("new_dtype=float8_e4m3fn")

    assert products_in_8_bits(ProductsConfig()) == 0
    attention, both = products_in_8_bits(ProductsConfig(**products)), products_in_8_bits(BOTH)
    assert (attention, both) == (2 * 2 * 4, 2 * 2 * 7)


def test_experts_are_refused():
    with pytest.raises(
        UserError, match=r"compute\.products\.feedforward=fp8: the grouped products of experts"
    ):
        model_of(BOTH, "moe")
