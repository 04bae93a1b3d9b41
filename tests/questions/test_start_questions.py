"""Questions of initial values, scalings and norms: what each changes, and that it changes nothing else."""

from __future__ import annotations

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.models import LayerContext, ModelDims, build
from harness.models.norms.norm_registry import NORMS
from harness.training.optimizers.matrices import hidden_matrices

D, F, L = 32, 48, 3


def model_of(folder: str = "", module: str = "", **nodes: Any) -> Any:
    if module:
        importlib.import_module(f"experiments.questions.{folder}.{module}")
    sizes: dict[str, Any] = {"width": D, "layers": L, "heads": 4, "head_width": 8, "ffn": F}
    config = Config(
        model=ModelConfig(**(sizes | nodes)),
        scale=ScaleConfig("tiny", 1, 1, 2),
        compute=ComputeConfig(),
        data=DataConfig(sequence_length=8),
    )
    return build(config, 64)


def start_of(name: str, module: str = "", **options: Any) -> dict[str, np.ndarray]:
    node = ModuleConfig(name, options)
    return model_of("initialisation", module or name, initialisation=node, tie_embeddings=False).init(0)


def changed(start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what differs from the default start."""
    plain = model_of(tie_embeddings=False).init(0)
    return {path: array for path, array in start.items() if not np.array_equal(array, plain[path])}


def test_zero_outputs():
    found = changed(start_of("zero_outputs"))
    assert len(found) == 2 * L
    assert all(path.endswith(("output", "down")) and not array.any() for path, array in found.items())


def test_flat_normal():
    found = changed(start_of("flat_normal"))
    assert not any(path.endswith("gain") for path in found)
    assert all(np.abs(array).max() <= 0.06 for array in found.values())
    assert np.concatenate([a.ravel() for a in found.values()]).std() == pytest.approx(0.02 * 0.9866, rel=0.02)


def test_half_uniform():
    found = changed(start_of("half_uniform"))
    assert {"embedding", "head"}.isdisjoint(found)
    down = found["layers.1.feedforward.down"]
    assert down.std() == pytest.approx(0.5 / F**0.5, rel=0.05)
    assert np.abs(down).max() == pytest.approx(3**0.5 * 0.5 / F**0.5, rel=0.02)


def test_without_depth_factor():
    found, plain = changed(start_of("without_depth_factor")), model_of().init(0)
    for path, array in found.items():
        np.testing.assert_allclose(array, (2 * L) ** 0.5 * plain[path], rtol=1e-5)
    assert len(found) == 2 * L


def test_falling_inputs():
    found, plain = changed(start_of("falling_inputs")), model_of().init(0)
    for layer in range(1, L):
        for name in ("up", "gate"):
            path = f"layers.{layer}.feedforward.{name}"
            np.testing.assert_allclose(found.pop(path), (1 - 0.15 * layer) * plain[path], rtol=1e-5)
    assert not found


def test_signed_gains():
    found = changed(start_of("signed_gains"))
    assert len(found) == 2 * L
    before, after = found["layers.0.attention_norm.gain"], found["layers.0.feedforward_norm.gain"]
    np.testing.assert_array_equal(before[:4], [0.875, 1.125, 0.875, 1.125])
    np.testing.assert_allclose(before + after, 2.0)
    assert before.mean() == 1


def test_orthogonal_leaves_tables_alone():
    found = changed(start_of("orthogonal"))
    assert {"embedding", "head"}.isdisjoint(found)
    query_DO = found["layers.0.attention.query"].reshape(D, D)
    np.testing.assert_allclose(query_DO @ query_DO.T, np.eye(D), atol=1e-5)


def test_embedding_deviation():
    found = changed(start_of("embedding_deviation", deviation=1.0))
    assert found.keys() == {"embedding"}
    assert found["embedding"].std() == pytest.approx(1.0, rel=0.05)


def test_a_table_that_starts_and_learns_faster_is_one_that_is_multiplied():
    node = ModuleConfig("root_width_embedding")
    model = model_of("scaling", "root_width_embedding", scaling=node, tie_embeddings=False)
    assert changed(model.init(0)).keys() == {"embedding"}
    np.testing.assert_allclose(
        model.init(0)["embedding"], D**0.5 * model_of().init(0)["embedding"], rtol=1e-6
    )
    assert model.scales["embedding"].rate == pytest.approx(D**0.5)


def test_fixed_matrices_have_no_rate_and_the_start_of_the_control():
    feedforward, scaling = ModuleConfig("fixed_random", {"rank": 4}), ModuleConfig("fixed_random")
    model = model_of("initialisation", "fixed_random", feedforward=feedforward, scaling=scaling)
    fixed = {path for path, scale in model.scales.items() if scale.rate == scale.decay == 0}
    assert fixed == {
        f"layers.{i}.feedforward.{name}.fixed" for i in range(L) for name in ("gate", "up", "down")
    }
    assert all(hidden_matrices(model)[path].rate == 0 for path in fixed)
    assert not model.init(0)["layers.0.feedforward.up.b"].any()


def test_norms_without_and_around_a_gain():
    for name in ("norm_without_gain", "zero_centred_gain"):
        importlib.import_module(f"experiments.questions.norm.{name}")
    dims = ModelDims(width=8, layers=1, heads=1, head_width=8, ffn=8, vocabulary=8)
    node = NORMS.lookup(ModuleConfig("norm_without_gain"))
    norm = LayerContext(dims, 0, 8, True, 1e-6, configured_norm=node).norm(8)
    x = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5)
    model = model_of(norm=ModuleConfig("zero_centred_gain"))
    gains = {path: spec for path, spec in model.param_specs.items() if path.endswith("gain")}
    assert all(spec.decays and not spec.is_weight and spec.draw.mean == 0 for spec in gains.values())
    assert not hidden_matrices(model).keys() & gains.keys()
