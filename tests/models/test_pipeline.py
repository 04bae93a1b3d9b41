"""Layers in the stages of a pipeline are the same mathematics as on one device.

Tolerance: micro-batches and devices sum in another order, and each of those few hundred terms rounds by 6e-8.
From equal parameters gradients were within 4e-6 of the largest. Two steps of descent let that grow, with
`mla` to 5e-5; losses of 3 nats stayed within 3e-6.
"""

from typing import Any

import jax
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.finetune import FinetuneConfig, FinetuneMethod
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, Remat, ScaleConfig
from harness.core.errors import UserError
from harness.models import build
from harness.models.counting.jaxpr import count_function_flops
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from tests.models.mechanisms import FEEDFORWARDS, MECHANISMS

SHAPE: dict[str, Any] = {"width": 8, "layers": 4, "heads": 4, "head_width": 4, "ffn": 12}
BATCH, LENGTH, END = 16, 16, 3
LOSS_TOLERANCE, GRADIENT_TOLERANCES = 1e-5, (1e-5, 1e-4, 1e-4)
"""Relative to the loss, and to the largest gradient of each step."""
THREE_AXES = MeshConfig(pipeline=2, data=2, tensor=2)


def model_of(
    mesh=None, microbatches=1, attention=("mha", {}), feedforward=("swiglu", {}), masked=False, **changes
):
    compute = {"scan_layers": True, "microbatches": microbatches} | changes.pop("compute", {})
    config = Config(
        model=ModelConfig(
            attention=ModuleConfig(*attention), feedforward=ModuleConfig(*feedforward), **(SHAPE | changes)
        ),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(**compute),
        data=DataConfig(sequence_length=LENGTH, mask_documents=masked),
        mesh=mesh or MeshConfig(),
    )
    return build(config, vocabulary=16, end_token=END if masked else None)


def descend(model, place, rows, steps=3):
    """Return loss, its parts and gradients of each step of gradient descent."""

    @jax.jit
    def step(params, rows):
        (loss, parts), gradient = jax.value_and_grad(lambda p: model.loss(p, rows, 1e-2), has_aux=True)(
            params
        )
        return (loss, parts), gradient, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    params, rows = place(model.init(0), rows)
    said, gradients = [], []
    for _ in range(steps):
        losses, gradient, params = step(params, rows)
        said.append(jax.tree.map(np.asarray, losses))
        gradients.append(jax.tree.map(np.asarray, gradient))
    return said, gradients


def assert_as_on_one(one, many, mesh, rows):
    expected, expected_gradients = descend(one, lambda *given: given, rows)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    shardings = param_shardings(lane, many.stored_specs), batch_sharding(lane, len(rows))
    with jax.set_mesh(lane):
        found, gradients = descend(many, lambda *given: jax.device_put(given, shardings), rows)
    for one_said, other_said in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other_said, one_said, rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE)
    for exact, gradient, tolerance in zip(expected_gradients, gradients, GRADIENT_TOLERANCES, strict=True):
        largest = max(np.abs(array).max() for array in exact.values())
        for path, array in exact.items():
            np.testing.assert_allclose(gradient[path], array, atol=tolerance * largest, err_msg=path)


def tokens():
    return np.random.default_rng(0).integers(0, 16, (BATCH, LENGTH + 1), np.int32)


def test_two_stages_and_four_other_parts_descend_as_one_device():
    """With documents, which have to go with their micro-batch."""
    one, many = model_of(masked=True), model_of(THREE_AXES, 4, masked=True)
    assert_as_on_one(one, many, THREE_AXES, tokens())


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "microbatches"), [(4, 4), (4, 8), (2, 2), (2, 8)])
def test_any_number_of_stages_and_micro_batches(stages, microbatches):
    mesh = MeshConfig(pipeline=stages, data=2)
    assert_as_on_one(model_of(), model_of(mesh, microbatches), mesh, tokens())


@pytest.mark.slow
@pytest.mark.parametrize("remat", Remat)
@pytest.mark.parametrize("options", FEEDFORWARDS.values(), ids=FEEDFORWARDS)
def test_experts(options, remat):
    """Their statistics are means over micro-batches too, without the idle turns."""
    mesh = MeshConfig(pipeline=2, fsdp=2, expert=2)
    given: dict[str, Any] = {"feedforward": ("moe", options)}
    many = model_of(mesh, 4, compute={"remat": remat}, **given)
    assert_as_on_one(model_of(**given), many, mesh, tokens())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["window-chunks", "mla", "chunks-and-global"])
def test_attention(name):
    given = {"attention": MECHANISMS[name], "masked": True}
    assert_as_on_one(model_of(**given), model_of(THREE_AXES, 4, **given), THREE_AXES, tokens())


def image_model(mesh=None, microbatches=1):
    config = Config(
        model=ModelConfig(kind="dit", patch=2, **SHAPE),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        data=DataConfig(sequence_length=4),
        compute=ComputeConfig(scan_layers=True, microbatches=microbatches),
        mesh=mesh or MeshConfig(),
    )
    return build(config, 10, image=(4, 4, 1))


@pytest.mark.slow
def test_images():
    """Time and label go with their micro-batch."""
    one, many = image_model(), image_model(THREE_AXES, 4)
    rows = np.random.default_rng(0).integers(0, 10, (BATCH, one.row_length), np.int32)
    assert_as_on_one(one, many, THREE_AXES, rows)


@pytest.mark.parametrize("remat", [Remat.none, Remat.full])
def test_idle_turns_are_among_the_executed_flops_and_not_the_models(remat):
    """A device's products, by its jaxpr, times the devices. Embedding and head have no idle turn."""
    model = model_of(THREE_AXES, 4, compute={"remat": remat})
    mesh = abstract_mesh(THREE_AXES)
    params = {
        path: jax.ShapeDtypeStruct(model.stored_specs[path].shape, np.float32, sharding=sharding)
        for path, sharding in param_shardings(mesh, model.stored_specs).items()
    }
    rows = jax.ShapeDtypeStruct((BATCH, LENGTH + 1), np.int32, sharding=batch_sharding(mesh, BATCH))
    with jax.sharding.use_abstract_mesh(mesh):
        counted = count_function_flops(
            lambda p, t: jax.value_and_grad(lambda p: model.loss(p, t, 0.0)[0])(p), params, rows
        )
    assert model.executed_flops_per_token * BATCH * LENGTH == 8 * counted
    alone = model_of(compute={"remat": remat})
    assert model.flops_per_token == alone.flops_per_token
    head = 6 * 8 * model.spec.table_rows
    idle = model.executed_flops_per_token - head
    assert idle == pytest.approx((alone.executed_flops_per_token - head) * 5 / 4)


REFUSED = {
    "layers": (
        MeshConfig(pipeline=3),
        3,
        {},
        "mesh.pipeline=3 does not divide model.layers=4 into equal stages",
    ),
    "pattern": (
        MeshConfig(pipeline=4),
        4,
        {"attention": MECHANISMS["chunks-and-global"]},
        "whole 2 layers that repeat",
    ),
    "micro-batches": (
        MeshConfig(pipeline=4),
        2,
        {},
        r"mesh.pipeline=4 does not divide compute.microbatches=2, .* multiple of 4",
    ),
    "unrolled": (MeshConfig(pipeline=2), 2, {"compute": {"scan_layers": False}}, "compute.scan_layers=true"),
    "context": (MeshConfig(pipeline=2, context=2), 2, {}, "mesh.pipeline=2 and mesh.context=2 cannot split"),
    "sequences": (MeshConfig(pipeline=2, data=16), 2, {}, "mesh.expert = 16 does not divide batch = 8"),
}


@pytest.mark.parametrize(("mesh", "microbatches", "changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_stages_do_not_fit_is_said(mesh, microbatches, changes, said):
    with pytest.raises(UserError, match=said):
        model_of(mesh, microbatches, **changes)


def test_a_pipeline_scans_unless_it_is_told_not_to():
    assert model_of(MeshConfig(pipeline=2), 2, compute={"scan_layers": None}).stacking.repeats == 4
    config = Config(
        model=ModelConfig(**SHAPE),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(microbatches=2),
        finetune=FinetuneConfig(FinetuneMethod.last_layers, trainable_layers=1),
        data=DataConfig(sequence_length=LENGTH),
        mesh=MeshConfig(pipeline=2),
    )
    with pytest.raises(UserError, match=r"not with finetune.method=last_layers"):
        build(config, 16)


def test_a_mesh_without_stages_has_no_axis_for_them():
    assert "pipeline" not in abstract_mesh(MeshConfig(2)).axis_names
    assert abstract_mesh(THREE_AXES).axis_names == ("pipeline", "data", "fsdp", "tensor", "expert")
