"""Layers under remat keep inputs that `tensor` splits in time: less memory, and the same numbers."""

import re
from typing import Any

import jax
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, Remat, ScaleConfig
from harness.models import build
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh

BATCH, LAYERS, WIDTH = 8, 3, 32


def program_of(mesh: MeshConfig, length: int, remat: Remat):
    """The jaxpr of a gradient, and its loss and gradients on the first devices."""
    sizes: dict[str, Any] = {"width": WIDTH, "layers": LAYERS, "heads": 4, "head_width": 8, "ffn": 48}
    config = Config(
        model=ModelConfig(ModuleConfig("mha"), ModuleConfig("swiglu"), **sizes),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(scan_layers=True, remat=remat),
        data=DataConfig(sequence_length=length),
        mesh=mesh,
    )
    model = build(config, 64)
    rows = np.random.default_rng(0).integers(0, 64, (BATCH, length + 1)).astype(np.int32)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        params = jax.device_put(model.init(0), param_shardings(lane, model.stored_specs))
        tokens = jax.device_put(rows, batch_sharding(lane, BATCH))
        traced = jax.jit(jax.value_and_grad(lambda params: model.loss(params, tokens, 0.0)[0])).trace(params)
        return str(traced.jaxpr), jax.device_get(traced.lower().compile()(params))


def kept_inputs(jaxpr: str, length: int) -> set[str]:
    """The types of arrays [layers, B, T, D] between the forward and the backward loop."""
    return set(re.findall(rf"f32\[{LAYERS},{BATCH}@\([^)]*\),{length}[^,]*,{WIDTH}\]", jaxpr))


@pytest.mark.parametrize("remat", [Remat.full, Remat.dots])
def test_what_a_layer_keeps_is_split_and_the_gradient_is_that_of_one_device(remat):
    mesh = MeshConfig(data=2, tensor=4)
    jaxpr, found = program_of(mesh, 16, remat)
    assert any("16@tensor" in kept for kept in kept_inputs(jaxpr, 16))
    if remat is Remat.full:
        assert all("16@tensor" in kept for kept in kept_inputs(jaxpr, 16))
    _, expected = program_of(MeshConfig(), 16, remat)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


WHOLE = {
    "odd length": (MeshConfig(tensor=4), 18, Remat.full),
    "no remat": (MeshConfig(tensor=4), 16, Remat.none),
    "context": (MeshConfig(tensor=2, context=2), 16, Remat.full),
}


@pytest.mark.parametrize(("mesh", "length", "remat"), WHOLE.values(), ids=WHOLE)
def test_otherwise_sequences_stay_whole(mesh, length, remat):
    assert f"{length}@tensor" not in program_of(mesh, length, remat)[0]
