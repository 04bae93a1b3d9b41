"""A model of a user's own: its start by path, its loss against plain Flax, its mesh, its FLOPs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import Config, ModelConfig, OptimizerConfig, ScaleConfig
from harness.data.images.image_corpus import pack_rows
from harness.models import build
from harness.models.families.own_context import ModelContext
from harness.models.parameters import init_blocks, init_param
from harness.models.step_clock import StepClock
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.optimizers.matrices import hidden_matrices
from tests.models.own_models import Curve, Options

T, V, IMAGE = 12, 32, (4, 4, 1)
KINDS = ("test_mixer", "test_rnn", "test_linen")


def config_of(kind, mesh=None, **options) -> Config:
    return Config(
        model=ModelConfig(kind=kind, options=options),
        scale=ScaleConfig("tiny", 1_000, 10_000, 8),
        data=DataConfig("test", sequence_length=T, kind="test_waves" if kind == "test_curve" else "text"),
        optimizer=OptimizerConfig(learning_rate=0.1),
        mesh=mesh or MeshConfig(),
    )


def model_of(kind, mesh=None, **options) -> Any:
    image, row = IMAGE if kind == "test_mixer" else None, (2, 4) if kind == "test_curve" else None
    dtype = "float32" if row else "int32"
    return build(config_of(kind, mesh, **options), V, image=image, row=row, dtype=dtype)


def rows_of(kind, count=8):
    draw = np.random.default_rng(0)
    if kind == "test_curve":
        return draw.normal(size=(count, 2, 4)).astype(np.float32)
    if kind != "test_mixer":
        return draw.integers(0, V, (count, T + 1)).astype(np.int32)
    images = draw.integers(0, 256, (count, *IMAGE)).astype(np.uint8)
    return pack_rows(
        np.arange(count, dtype=np.uint64), np.full(count, 0.5), draw.integers(0, V, count), images
    )


@pytest.mark.parametrize("kind", ["test_mixer", "test_linen"])
def test_what_a_layer_in_front_leaves_starts_bitwise_equal(kind):
    """In Flax itself a layer in front takes the keys of all that come after it."""
    plain, front = (model_of(kind, front=front) for front in (False, True))
    starts = plain.init(3), front.init(3)
    assert len(starts[1]) == len(starts[0]) + 2
    for path, array in starts[0].items():
        np.testing.assert_array_equal(array, starts[1][path], err_msg=path)
    other = plain.init(4)
    assert any(not np.array_equal(array, other[path]) for path, array in starts[0].items())


def test_two_parameters_of_one_shape_start_differently_and_as_their_initialiser_says():
    model = model_of("test_rnn", width=64, layers=2)
    start = model.init(0)
    kernels = [start[f"layers.{layer}.cell.dense_i.kernel"] for layer in range(2)]
    assert not np.array_equal(*kernels)
    assert abs(float(start["table.embedding"].std()) - 0.1) < 0.01
    assert kernels[0].std() == pytest.approx(1 / 8, rel=0.05)  # LeCun: 1 / sqrt(64)
    assert not start["head.bias"].any()


def test_a_part_of_a_parameter_is_that_part_of_the_whole():
    model = model_of("test_mixer")
    for path, spec in model.stored_specs.items():
        whole = init_param(5, path, spec)
        block = tuple(range(size // 2, size) for size in spec.shape)
        (part,) = init_blocks(5, path, spec, [block])
        np.testing.assert_array_equal(part, whole[tuple(slice(r.start, r.stop) for r in block)], err_msg=path)


def test_loss_and_gradient_are_those_of_the_module_alone():
    """Against the class, built by Flax and given the same values by hand."""
    model, rows = model_of("test_curve"), rows_of("test_curve")
    context = ModelContext(1_000, V, T, (2, 4), None, jnp.float32)
    alone, params = Curve(context, Options(), nnx.Rngs(0)), model.init(2)
    for layer in ("up", "down"):
        for name in ("kernel", "bias"):
            setattr(getattr(alone, layer), name, nnx.Param(jnp.asarray(params[f"{layer}.{name}"])))
    expected, gradient = nnx.value_and_grad(lambda m: jnp.mean(m.loss(rows, None)))(alone)
    found, own = jax.value_and_grad(lambda p: model.loss(p, rows, 0.0)[0])(params)
    assert float(found) == float(expected)
    for layer in ("up", "down"):
        kernel = gradient[layer]["kernel"][...]
        np.testing.assert_allclose(own[f"{layer}.kernel"], kernel, rtol=1e-6)
    np.testing.assert_allclose(jnp.mean(model.token_losses(params, rows)), expected, rtol=1e-6)
    assert model.token_losses(params, rows).shape == (8, T)


def test_a_loss_is_told_the_key_of_its_step_and_none_when_it_is_judged():
    model, rows = model_of("test_curve"), rows_of("test_curve")
    params = model.init(0)
    assert model.asks_clock

    def at(step):
        return float(model.loss(params, rows, 0.0, StepClock(step, 0.5, 0, 0))[0])

    assert at(1) == at(1) != at(2)
    assert float(model.loss(params, rows, 0.0)[0]) == pytest.approx(
        float(jnp.mean(model.token_losses(params, rows)))
    )
    assert not model_of("test_rnn").asks_clock


@pytest.mark.parametrize("kind", KINDS)
def test_eight_devices_equal_one(kind):
    mesh = MeshConfig(2, 2, 2)
    one, many, rows = model_of(kind), model_of(kind, mesh), rows_of(kind)
    params = one.init(0)

    def loss_and_gradient(model, params, rows):
        return jax.jit(jax.value_and_grad(lambda p, r: model.loss(p, r, 0.0)[0]))(params, rows)

    expected, gradient = loss_and_gradient(one, params, rows)
    devices = lane_mesh(jax.devices(), mesh)
    with jax.set_mesh(devices):
        placed = jax.device_put(params, param_shardings(devices, many.stored_specs))
        found, parts = loss_and_gradient(many, placed, jax.device_put(rows, batch_sharding(devices, 8)))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    for path, array in parts.items():
        np.testing.assert_allclose(gradient[path], array, rtol=1e-4, atol=1e-6, err_msg=path)


def test_axes_are_those_that_a_parameter_names_else_its_largest():
    axes = {path: spec.axes for path, spec in model_of("test_rnn", MeshConfig(fsdp=2)).stored_specs.items()}
    assert axes["table.embedding"] == ("vocabulary", None)
    assert axes["head.kernel"] == (None, "largest")
    assert {axis for axes in model_of("test_rnn").stored_specs.values() for axis in axes.axes} == {
        None,
        "vocabulary",
    }


def test_flops_are_counted_in_the_loss():
    """Two layers of 4 x 8: the inputs of the first have no gradient."""
    model = model_of("test_curve")
    assert model.flops_per_token == (6 * 2 * 4 * 8 - 2 * 4 * 8) / T
    assert model.executed_flops_per_token == model.flops_per_token
    assert model.parameters == model.non_embedding_parameters == 4 * 8 + 8 + 8 * 4 + 4
    text = model_of("test_rnn")
    assert text.embedding_parameters == V * 8


def test_biases_of_several_axes_are_no_matrices():
    model = model_of("test_linen")
    decays = {path for path, spec in model.stored_specs.items() if spec.decays}
    assert "net.attention_0.key.bias" in model.stored_specs.keys() - decays
    assert hidden_matrices(model).keys() == decays
    shape = dataclasses.asdict(model.shape)
    assert "layers" not in shape
