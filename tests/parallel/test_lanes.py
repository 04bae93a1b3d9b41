"""A lane is a mesh of exactly its devices; what does not divide is said before anything is compiled."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import P
from jax.sharding import AxisType

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.core.errors import UserError
from harness.models import build
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh


def model_of(name="mha", options=None, layers=False, **changes):
    shape: dict[str, Any] = {"width": 16, "layers": 1, "heads": 4, "head_width": 4, "ffn": 24} | changes
    return build(
        Config(
            model=ModelConfig(attention=ModuleConfig(name, options or {}), **shape),
            scale=ScaleConfig("tiny", 1, 1, 8),
            compute=ComputeConfig(scan_layers=layers),
            data=DataConfig(sequence_length=16),
        ),
        vocabulary=16,
    )


def test_axes_are_explicit_and_devices_keep_their_order():
    devices = jax.devices()[2:6]
    mesh = lane_mesh(devices, MeshConfig(data=2, tensor=2))
    assert mesh.axis_names == ("data", "fsdp", "tensor", "expert")
    assert mesh.axis_types == (AxisType.Explicit,) * 4
    assert list(mesh.devices.flat) == devices


def test_a_lane_needs_its_number_of_devices():
    with pytest.raises(UserError, match="needs 4 devices, but the lane has 8"):
        lane_mesh(jax.devices(), MeshConfig(data=4))


def test_parameters_are_split_as_the_table_says():
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 2, 2))
    shardings = param_shardings(mesh, model_of(layers=True).stored_specs)
    assert shardings["repeats.0.attention.query"].spec == P(None, "fsdp", "tensor", None)
    assert shardings["repeats.0.feedforward.down"].spec == P(None, "tensor", "fsdp")
    assert shardings["norm.gain"].spec == P("fsdp")
    assert batch_sharding(mesh, 8).spec == P(("data", "fsdp", "expert"), None)


@pytest.mark.parametrize(
    ("mesh", "changes", "said"),
    [
        (MeshConfig(tensor=8), {}, "mesh.tensor = 8 does not divide heads = 4"),
        (MeshConfig(fsdp=8), {"width": 20, "heads": 8}, "mesh.fsdp = 8 does not divide width = 20"),
        (MeshConfig(tensor=4), {"ffn": 26}, "mesh.tensor = 4 does not divide ffn = 26"),
        (MeshConfig(tensor=4), {"name": "gqa", "options": {"kv_heads": 2}}, "kv_heads = 2: choose"),
    ],
)
def test_what_does_not_divide_is_said(mesh, changes, said):
    devices = jax.devices()[: mesh.devices]
    with pytest.raises(UserError, match=said):
        param_shardings(lane_mesh(devices, mesh), model_of(**changes).stored_specs)


def test_a_batch_that_does_not_divide_is_said():
    mesh = lane_mesh(jax.devices()[:4], MeshConfig(2, 2))
    with pytest.raises(
        UserError,
        match=r"mesh.data x mesh.fsdp x mesh.expert = 4 does not divide batch = 6: choose scale.batch",
    ):
        batch_sharding(mesh, 6)


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("mha", {}, False),
        ("gqa", {"kv_heads": 2}, True),
        (
            "pattern",
            {"cycle": [{"name": "window", "options": {"window": 4}}, {"name": "mha"}]},
            False,
        ),
    ],
)
def test_eight_devices_equal_one(name, options, layers):
    """Loss and every gradient on 2 x 2 x 2, within float32 summation order."""
    model = model_of(name, options, layers)
    params, tokens = model.init(0), np.random.default_rng(0).integers(0, 16, (8, 17), dtype=np.int32)
    step = jax.jit(jax.value_and_grad(lambda p, t: model.loss(p, t, 1e-2), has_aux=True))
    (alone, _), gradient = step(params, tokens)
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        shardings = param_shardings(mesh, model.stored_specs)
        placed = jax.device_put(params, shardings)
        (together, _), split = step(placed, jax.device_put(tokens, batch_sharding(mesh, 8)))
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    for path, array in split.items():
        assert array.sharding == shardings[path]
        np.testing.assert_allclose(gradient[path], array, atol=2e-6, err_msg=path)
