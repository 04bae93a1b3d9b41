"""A residual stream with axes of its own trains on a mesh as on one device."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import P
from jax.sharding import NamedSharding

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    ModelConfig,
    ModuleConfig,
    OptimizerConfig,
    Remat,
    ScaleConfig,
)
from harness.models import build
from harness.parallel.sharding.axis_rules import param_shardings, partition_spec
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.step import TrainState, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import make_trainable

BATCH, LENGTH = 8, 16
ROWS = np.random.default_rng(0).integers(0, 64, (BATCH, LENGTH + 1)).astype(np.int32)


def one_step(block: str, mesh: MeshConfig, remat: Remat, microbatches: int) -> tuple[Any, Any]:
    """The parameters after a step of plain descent, and [loss, norm of the gradient]."""
    sizes: dict[str, Any] = {"width": 32, "layers": 3, "heads": 4, "head_width": 8, "ffn": 48}
    config = Config(
        model=ModelConfig(block=ModuleConfig(block), **sizes),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(remat=remat, microbatches=microbatches),
        data=DataConfig(sequence_length=LENGTH),
        optimizer=OptimizerConfig(name="optax.sgd", learning_rate=1.0, clip_norm=1e9),
        mesh=mesh,
    )
    model = build(config, 64)
    noise = np.random.default_rng(1)
    start = {path: v + noise.normal(0, 0.1, v.shape).astype(np.float32) for path, v in model.init(0).items()}
    optimizer = make_trainable(config, model).build_optimizer(config.optimizer)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        params = jax.device_put(start, param_shardings(lane, model.stored_specs))
        split = NamedSharding(lane, P(None, *partition_spec("rows", None)))
        rows = jax.device_put(ROWS.reshape(microbatches, -1, LENGTH + 1), split)
        step = jax.jit(make_step(model, config.optimizer, optimizer, z_loss=0.0))
        state, metrics = step(TrainState(params, optimizer.init(params)), rows, StepInputs(1.0))
        return jax.device_get((state.params, metrics))


@pytest.mark.slow
@pytest.mark.parametrize("block", ["hyper_connections", "attention_residuals"])
def test_several_streams_on_eight_devices_train_as_on_one(block):
    """Lanes [B, T, n, D] and a history that grows: two programs for eight devices, compiled."""
    params, metrics = one_step(block, MeshConfig(), Remat.none, 1)
    largest = max(float(np.abs(value).max()) for value in params.values())
    for microbatches in (1, 2):
        mesh = MeshConfig(data=2, fsdp=2, tensor=2)
        many, many_metrics = one_step(block, mesh, Remat.full, microbatches)
        np.testing.assert_allclose(many_metrics, metrics, rtol=1e-5)
        for path, value in params.items():
            np.testing.assert_allclose(many[path], value, atol=1e-5 * largest, err_msg=path)
