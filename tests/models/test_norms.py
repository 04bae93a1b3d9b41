"""Norms: against flax's, in every place of a model, and the default as ever."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.core.errors import UserError
from harness.models import LayerContext, ModelDims, build, sizing
from harness.models.norms.norm_registry import NORMS
from harness.models.parameters import init_param, param_specs

DIMS = ModelDims(width=16, layers=2, heads=4, head_width=4, ffn=24, vocabulary=32)
EPSILON = 1e-3


def built(name: str, size: int, axis: str | None = "width", **options: Any) -> Any:
    """A norm with parameters drawn around their start, so that each of them counts."""
    norm = NORMS.lookup(ModuleConfig(name, options))
    context = LayerContext(DIMS, 0, 16, qk_norm=True, norm_epsilon=EPSILON, configured_norm=norm)
    module: Any = context.norm(size, axis)
    noise = np.random.default_rng(0)
    for path, spec in param_specs(module).items():
        value = init_param(0, path, spec) + noise.normal(0, 0.3, spec.shape).astype(np.float32)
        setattr(module, path, nnx.Param(jnp.asarray(value), axes=spec.axes))
    return module


def inputs(*shape: int) -> np.ndarray:
    return (3 * np.random.default_rng(1).normal(size=shape) + 1).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_that_of_flax(bias):
    ours, x = built("layer_norm", 16, bias=bias), inputs(2, 5, 16)
    theirs = nnx.LayerNorm(16, epsilon=EPSILON, use_bias=bias, use_fast_variance=False, rngs=nnx.Rngs(0))
    theirs.scale[...] = ours.gain[...]
    if bias:
        theirs.bias[...] = ours.bias[...]
    np.testing.assert_allclose(ours(jnp.asarray(x)), theirs(jnp.asarray(x)), rtol=1e-5, atol=1e-5)


def test_rms_equals_that_of_flax():
    ours, x = built("rms", 16), inputs(2, 5, 16)
    theirs = nnx.RMSNorm(16, epsilon=EPSILON, rngs=nnx.Rngs(0))
    theirs.scale[...] = ours.gain[...]
    np.testing.assert_allclose(ours(jnp.asarray(x)), theirs(jnp.asarray(x)), rtol=1e-5, atol=1e-5)


def test_dynamic_tanh_equals_numpys():
    ours, x = built("dynamic_tanh", 16, alpha=0.7), inputs(2, 5, 16)
    gain, bias, slope = (np.asarray(param[...]) for param in (ours.gain, ours.bias, ours.alpha))
    np.testing.assert_allclose(ours(jnp.asarray(x)), gain * np.tanh(slope * x) + bias, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"model\.norm\.options\.alpha=0\.0 must be above 0"):
        built("dynamic_tanh", 16, alpha=0.0)


@pytest.mark.parametrize("name", ["rms", "layer_norm", "dynamic_tanh"])
def test_a_norm_keeps_the_dtype(name):
    x = jnp.asarray(inputs(2, 16), jnp.bfloat16)
    assert built(name, 16)(x).dtype == jnp.bfloat16


def model_of(norm: str, attention: str = "mha", **options: Any) -> Any:
    sizes: dict[str, Any] = {"width": 16, "layers": 2, "heads": 4, "head_width": 4, "ffn": 24}
    config = Config(
        model=ModelConfig(ModuleConfig(attention, options), norm=ModuleConfig(norm), **sizes),
        scale=ScaleConfig("tiny", 1, 1, 2),
        compute=ComputeConfig(),
        data=DataConfig(sequence_length=8),
    )
    return build(config, 32)


@pytest.mark.parametrize(
    ("attention", "options"),
    [("mha", {}), ("mla", {"latent": 8, "rotary": 2}), ("gated_delta", {"chunk": 8})],
)
def test_the_norm_stands_in_every_place(attention, options):
    """Each gain of the plain model has a bias beside it, and every parameter is counted and learns."""
    plain, model = model_of("rms", attention, **options), model_of("layer_norm", attention, **options)
    gains = {path for path in plain.param_specs if path.rpartition(".")[2] == "gain"}
    added = {path.removesuffix("gain") + "bias" for path in gains}
    assert model.param_specs.keys() == plain.param_specs.keys() | added
    assert sizing.count_non_embedding(model.spec) == model.parameters - 128 * 16
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 32, (2, 9)), jnp.int32)
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, rows, 0.0)[0]))(model.init(0))
    assert [path for path, slope in gradient.items() if not np.any(slope)] == []


def test_an_unknown_norm_is_refused():
    with pytest.raises(UserError, match=r"model\.norm\.name=layernorm is not registered: .*layer_norm"):
        model_of("layernorm")
