"""Factors of a scaling in training: rate, decay and epsilon of each parameter, and what they freeze."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.data import DataConfig
from harness.config.schema.finetune import FinetuneConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    ModelConfig,
    ModuleConfig,
    OptimizerConfig,
    ScaleConfig,
)
from harness.models import ParamSpec, build
from harness.models.scaling.scaling_registry import SCALINGS, Growth, Scale, register_scaling
from harness.training.optimizers.matrices import hidden_matrices
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import TrainableModel

RATE, DECAY, EPSILON = 0.1, 0.5, 1e-3
FACTORS = {
    "layers.0.attention.query": Scale(rate=0.5, decay=0.25, epsilon=8.0),
    "layers.1.feedforward.down": Scale(rate=0.0, decay=0.0),
    "norm.gain": Scale(rate=2.0, epsilon=3.0),
}


@pytest.fixture
def scaling():
    @register_scaling("of_this_test")
    def of_this_test(path: str, spec: ParamSpec, growth: Growth, options: Any) -> Scale:
        return FACTORS.get(path, Scale())

    yield ModuleConfig("of_this_test")
    del SCALINGS.entries["of_this_test"]


def trainable_of(scaling: ModuleConfig) -> TrainableModel:
    sizes: dict[str, Any] = {"width": 8, "layers": 2, "heads": 2, "head_width": 4, "ffn": 12}
    config = Config(
        model=ModelConfig(scaling=scaling, **sizes),
        scale=ScaleConfig("tiny", 1, 1, 2),
        compute=ComputeConfig(),
        data=DataConfig(sequence_length=8),
    )
    return TrainableModel(build(config, 16), FinetuneConfig(), None, {})


def steps(model: TrainableModel, name: str, grads: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The parameters after these gradients."""
    config = OptimizerConfig(name, RATE, epsilon=EPSILON, weight_decay=DECAY, clip_norm=1e9)
    params: Any = model.model.init(0)
    built = model.build_optimizer(config)
    state = built.init(params)
    for grad in grads:
        updates, state = built.at_step(StepInputs(RATE)).update(grad, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return jax.device_get(params)


def gradients(model: TrainableModel) -> list[dict[str, np.ndarray]]:
    """Two gradients of the size of epsilon, so that it counts."""
    rng = np.random.default_rng(0)
    specs = model.stored_specs.items()
    return [{path: EPSILON * rng.normal(size=s.shape).astype(np.float32) for path, s in specs} for _ in "ab"]


def test_adamw_follows_the_factors_of_each_parameter(scaling):
    model = trainable_of(scaling)
    grads = gradients(model)
    found, start = steps(model, "adamw", grads), model.model.init(0)
    for path, spec in model.stored_specs.items():
        scale, w = FACTORS.get(path, Scale()), start[path].astype(np.float64)
        m = v = np.zeros_like(w)
        for t, grad in enumerate(grads, 1):
            m = 0.9 * m + 0.1 * grad[path]
            v = 0.95 * v + 0.05 * grad[path].astype(np.float64) ** 2
            unit = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + scale.epsilon * EPSILON)
            w = w - RATE * (scale.rate * unit + DECAY * scale.decay * spec.decays * w)
        np.testing.assert_allclose(found[path], w, rtol=2e-4, atol=2e-5, err_msg=path)


def test_what_has_no_rate_and_no_decay_keeps_its_bits(scaling):
    model = trainable_of(scaling)
    for name in ("adamw", "muon", "lion"):
        found, start = steps(model, name, gradients(model)), model.model.init(0)
        still = [path for path in start if np.array_equal(found[path], start[path])]
        assert still == ["layers.1.feedforward.down"], name


def test_depth_carries_to_muon_too():
    """At four times the depth an output projection learns a quarter as fast; other matrices as fast."""
    model = trainable_of(ModuleConfig("complete_p", {"base_layers": 2})).model
    shallow = trainable_of(ModuleConfig("complete_p", {"base_layers": 8})).model
    deep = {path: m.rate for path, m in hidden_matrices(model).items()}
    for path, matrix in hidden_matrices(shallow).items():
        writes = path.endswith(("output", "down"))
        assert matrix.rate == pytest.approx(deep[path] * (4 if writes else 1))
