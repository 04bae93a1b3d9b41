"""A run starts in the layout that it trains in, bitwise as on one device."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.models import build
from harness.parallel.sharding.axis_rules import param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.trainable import draw_params as drawing
from harness.training.trainable.draw_params import draw_params
from tests.training.runs import TINY, init_params

SHAPE = ("model.width=32", "model.layers=3", "model.heads=2", "model.ffn=48", "data.tokenizer=bpe512")
MODELS = {
    "unrolled": (),
    "scanned": ("compute.scan_layers=true",),
    "untied": ("model.tie_embeddings=false",),
    "experts": (
        "model.feedforward.name=moe",
        "+model.feedforward.options.experts=4",
        "compute.scan_layers=true",
    ),
    "lora": ("finetune.method=lora", "finetune.rank=2", "compute.scan_layers=true"),
    "bfloat16": ("compute.parameter_dtype=bfloat16", "compute.scan_layers=true"),
}
MESHES = {
    "one": MeshConfig(),
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(fsdp=8),
    "three axes": MeshConfig(data=2, fsdp=2, tensor=2),
    "expert": MeshConfig(expert=2, fsdp=4),
    "context": MeshConfig(context=2, fsdp=4),
}


@functools.cache
def config_of(model: str) -> Config:
    return compose(["data=own", "data.sources.own.path=x", *TINY, *SHAPE, *MODELS[model]])


def specs_of(model: str, mesh: MeshConfig) -> ProgramSpecs:
    config = dataclasses.replace(config_of(model), mesh=mesh)
    return ProgramSpecs(config, build(config, 512), lane_mesh(jax.devices()[: mesh.devices], mesh))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_every_mesh_starts_bitwise_alike(model, mesh):
    assert_as_drawn_whole(specs_of(model, MESHES[mesh]))


@pytest.mark.parametrize("model", ["scanned", "experts", "lora"])
def test_stages_of_a_pipeline_start_bitwise_alike(model):
    shape = (
        *SHAPE,
        *MODELS[model],
        "model.layers=4",
        "compute.microbatches=2",
        "mesh.pipeline=2",
        "mesh.fsdp=2",
    )
    config = compose(["data=own", "data.sources.own.path=x", *TINY, *shape])
    lane = lane_mesh(jax.devices()[:4], config.mesh)
    assert_as_drawn_whole(ProgramSpecs(config, build(config, 512), lane))


def assert_as_drawn_whole(specs: ProgramSpecs) -> None:
    params = draw_params(specs.trainable_model, 4, specs.param_shardings)
    dtypes = specs.trainable_model.dtypes
    expected = {path: x.astype(dtypes[path]) for path, x in init_params(specs.trainable_model, 4).items()}
    assert params.keys() == expected.keys()
    for path, array in params.items():
        assert array.sharding == specs.param_shardings[path]
        assert np.asarray(array).tobytes() == expected[path].tobytes(), path
        for shard in array.addressable_shards:
            assert shard.data.devices() == {shard.device}
            assert np.asarray(shard.data).tobytes() == expected[path][shard.index].tobytes(), path


def test_groups_of_any_size_give_the_same_values(monkeypatch):
    specs = specs_of("unrolled", MeshConfig(fsdp=4))
    expected = init_params(specs.trainable_model, 0)
    for size in (1, 2**13, 2**15):
        monkeypatch.setattr(drawing, "GROUP_BYTES", size)
        shares = []
        params = draw_params(specs.trainable_model, 0, specs.param_shardings, shares.append)
        assert all(np.array_equal(params[path], expected[path]) for path in expected)
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_a_process_draws_what_its_devices_hold(monkeypatch):
    """Half the devices of a mesh, as one of two processes has them."""
    specs = specs_of("scanned", MeshConfig(fsdp=8))
    mine = set(jax.devices()[:4])
    held = []
    for path, sharding in param_shardings(specs.mesh, specs.trainable_model.stored_specs).items():
        real = type(sharding).addressable_devices_indices_map
        monkeypatch.setattr(
            type(sharding),
            "addressable_devices_indices_map",
            lambda self, shape, real=real: {d: i for d, i in real(self, shape).items() if d in mine},
        )
        param = drawing._local_param(path, specs.trainable_model.stored_specs[path], sharding)
        monkeypatch.undo()
        held.append((param.num_bytes, 4 * param.spec.size, "width" in param.spec.axes))
    assert all(mine == whole / 2 if split else mine == whole for mine, whole, split in held)
    assert any(split for *_, split in held)
