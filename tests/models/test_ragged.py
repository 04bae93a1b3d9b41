"""Experts by the kernel of a TPU, interpreted on the CPU, against the blocks that are the reference."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Kernels, ModuleConfig, Precision
from harness.core.errors import UserError
from harness.models.feedforward import expert_parallel
from harness.models.feedforward.dispatch import sorted_plan
from harness.models.feedforward.ragged import computed_rows, padded_rows
from harness.models.kernels import KernelTarget, describe_kernels
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models.test_attention import scrambled
from tests.models.test_decoder import loss_and_gradient

T = 16
OPTIONS = {"experts": 4, "top_k": 2}


@pytest.fixture
def pair(small, monkeypatch):
    """A model of one layer with experts on a CPU, and the same on a TPU whose kernel is interpreted."""
    interpreted = partial(expert_parallel._apply_ragged, interpret=True)
    monkeypatch.setattr(expert_parallel, "_apply_ragged", interpreted)
    plain = small(layers=1, feedforward=ModuleConfig("moe", OPTIONS))
    spec = dataclasses.replace(plain.spec, target=KernelTarget("tpu"))
    return plain, type(plain).assemble(spec, plain.compute)


def assert_close(ours, expected):
    for path, array in expected.items():
        np.testing.assert_allclose(ours[path], array, atol=2e-6, rtol=2e-5, err_msg=path)


def test_rows_sorted_by_expert_give_the_same_loss_and_gradient(pair, tokens):
    plain, fused = pair
    params, batch = scrambled(plain.init(0)), tokens(2, T + 1)
    assert [each.module(params).layers[0].feedforward.fused for each in pair] == [False, True]
    (loss, _), slopes = loss_and_gradient(plain, params, batch)
    (fused_loss, _), fused_slopes = loss_and_gradient(fused, params, batch)
    np.testing.assert_allclose(fused_loss, loss, rtol=1e-6)
    assert_close(fused_slopes, slopes)


@pytest.mark.slow
def test_eight_devices_run_the_kernel_as_one(pair, tokens):
    plain, fused = pair
    mesh = lane_mesh(jax.devices(), MeshConfig(fsdp=2, tensor=2, expert=2))
    params, batch = scrambled(plain.init(0)), tokens(8, T + 1)
    (loss, _), slopes = loss_and_gradient(plain, params, batch)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(mesh, fused.stored_specs))
        rows = jax.device_put(batch, batch_sharding(mesh, 8))
        (sharded_loss, _), sharded_slopes = loss_and_gradient(fused, placed, rows)
    np.testing.assert_allclose(sharded_loss, loss, rtol=1e-6)
    assert_close(sharded_slopes, slopes)


def test_each_assignment_has_a_row_of_its_expert_and_padding_is_the_last_ones():
    chosen = jnp.asarray(np.random.default_rng(0).integers(0, 3, 200))
    plan, rows = sorted_plan(chosen, 5)
    assert rows.sum() == padded_rows(200) == len(plan.assignment_R) == 256
    owner = np.repeat(np.arange(5), rows)
    assert (owner[plan.row_A] == chosen).all()
    assert sorted(plan.row_A.tolist()) == list(range(200))
    assert (plan.assignment_R[200:] == 200).all()


def test_tiles_are_counted_that_a_kernel_visits():
    """At most: a tile for each expert that begins within one."""
    sizes = np.array([1, 300, 0, 211])
    tile, ends = 512, np.cumsum(sizes)
    visits = sum(
        -(-end // tile) - start // tile for start, end in zip(ends - sizes, ends, strict=True) if end > start
    )
    assert visits * tile <= computed_rows(512, 4) == 512 + 3 * tile


def test_where_no_kernel_is_the_blocks_are_told(small):
    layer = small(layers=1, feedforward=ModuleConfig("moe", OPTIONS)).spec

    def kernels(target):
        return describe_kernels(dataclasses.replace(layer, target=target).kernels)

    assert kernels(KernelTarget("tpu"))[1] == "experts: megablox"
    assert kernels(KernelTarget("cpu")) == ["attention: reference", "experts: reference"]
    lacks = "on cuda JAX has no product of experts that multiplies each row once"
    assert kernels(KernelTarget("cuda", Precision.bfloat16))[1] == f"experts: reference ({lacks})"
    with pytest.raises(UserError, match=r"compute.kernels=fused: on cuda JAX has no product of experts"):
        layer.feedforward.kernel(
            dataclasses.replace(layer.context(0), target=KernelTarget("cuda", kernels=Kernels.fused))
        )
    queues = small(layers=1, feedforward=ModuleConfig("moe", OPTIONS | {"dispatch": "capacity"})).spec
    assert len(queues.kernels) == 1
