"""A sequence over several devices is the same mathematics as on one."""

import jax
import numpy as np
import pytest

from harness.config.errors import UserError
from harness.config.schema import (
    ComputeConfig,
    Config,
    DataConfig,
    Kind,
    Layers,
    Mechanism,
    MeshConfig,
    ModelConfig,
    Remat,
    ScaleConfig,
)
from harness.models import build
from harness.models.attention.ring import hops, keys_multiplied_around
from harness.models.attention.softmax import visible
from harness.models.flops import count_jaxpr
from harness.parallel.mesh import lane_mesh
from harness.parallel.rules import batch_sharding, param_shardings
from tests.models.mechanisms import FEEDFORWARDS, MECHANISMS, OF_EACH

SHAPE = {"width": 8, "layers": 2, "heads": 4, "head_width": 4, "ffn": 12}
LENGTH, END = 16, 3


def model_of(attention, feedforward=("swiglu", {}), mesh=None, masked=False, compute=None, **changes):
    config = Config(
        model=ModelConfig(
            attention=Mechanism(*attention), feedforward=Mechanism(*feedforward), **(SHAPE | changes)
        ),
        scale=ScaleConfig("tiny", 1, 1, 8),
        compute=compute or ComputeConfig(),
        data=DataConfig(sequence_length=LENGTH, mask_documents=masked),
        mesh=mesh or MeshConfig(),
    )
    return build(config, vocabulary=16, end=END if masked else None)


def answers(model):
    """Loss and its parts, gradients, logits."""

    def answer(params, tokens):
        graded = jax.value_and_grad(lambda p: model.loss(p, tokens, 1e-2), has_aux=True)(params)
        return (*graded, model.logits(params, tokens[:, :-1]))

    return jax.jit(answer)


def assert_alike(one, other, share=1e-5):
    """Within such a share of the largest value: sums of terms that cancel have no precision of their own."""
    largest = max(np.abs(array).max() for array in jax.tree.leaves(one))
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=0, atol=share * largest, err_msg=path)


def assert_as_on_one(attention, mesh, compute=None, share=1e-5, **given):
    plain = model_of(attention, **given)
    params, tokens = plain.init(0), np.random.default_rng(7).integers(0, 16, (8, LENGTH + 1), np.int32)
    (alone, parts), gradient, logits = answers(plain)(params, tokens)
    model = model_of(attention, mesh=mesh, compute=compute, **given)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        shardings = param_shardings(lane, model.stored)
        placed = jax.device_put(model.init(0), shardings)
        (together, others), split, split_logits = answers(model)(
            placed, jax.device_put(tokens, batch_sharding(lane, 8))
        )
    assert all(split[path].sharding == shardings[path] for path in split)
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    assert_alike({"logits": logits}, {"logits": split_logits})
    assert_alike(gradient, model.unstack(split), share)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


MESHES = {"2": MeshConfig(context=2), "4": MeshConfig(context=4), "2x2x2": MeshConfig(2, 1, 2, 1, 2)}


def test_all_that_a_score_may_have_over_parts():
    """A window over three parts, documents, groups of heads, a cap and sinks."""
    options = {"window": 6, "kv_heads": 2, "softcap": 2.0, "sinks": True}
    assert_as_on_one(("window", options), MeshConfig(context=4), masked=True, layers=1)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("masked", [False, True], ids=["", "documents"])
@pytest.mark.parametrize("attention", MECHANISMS.values(), ids=MECHANISMS)
def test_attention(attention, masked, mesh):
    assert_as_on_one(attention, mesh, masked=masked)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [*MESHES.values(), MeshConfig(expert=2, context=4)], ids=[*MESHES, "expert"])
@pytest.mark.parametrize("options", FEEDFORWARDS.values(), ids=FEEDFORWARDS)
def test_experts(options, mesh):
    assert_as_on_one(("mha", {}), mesh, feedforward=("moe", options))


@pytest.mark.slow
@pytest.mark.parametrize("remat", Remat)
@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=4, context=2), MeshConfig(tensor=2, context=4)])
def test_scan_and_remat(remat, mesh):
    """Six layers, in which rounding grows."""
    compute = ComputeConfig(layers=Layers.scanned, remat=remat)
    assert_as_on_one(
        ("pattern", {"cycle": OF_EACH}), mesh, compute=compute, masked=True, layers=6, share=1e-4
    )


@pytest.mark.parametrize(("length", "devices"), [(16, 2), (16, 4), (24, 8)])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 4, 5, 9, 16])
def test_keys_come_from_all_parts_that_a_query_sees_and_no_others(length, devices, window):
    at = np.arange(length)
    query, key = np.nonzero(np.asarray(visible(at, at, window)))
    part = length // devices
    assert hops(part, window, devices) == (query // part - key // part).max()


@pytest.mark.parametrize(
    ("attention", "feedforward"),
    [
        (("window", {"window": 4, "kv_heads": 2, "softcap": 2.0, "sinks": True}), ("swiglu", {})),
        (("pattern", {"cycle": [{"name": "mla", "options": {"latent": 6, "rotary": 2}}, {"name": "mha"}]}),
         ("swiglu", {})),
        (("pattern", {"cycle": [{"name": "gated_delta", "options": {"chunk": 4}}]}), ("swiglu", {})),
    ],
    ids=["window", "all keys", "gathered"],
)  # fmt: skip
def test_executed_flops_are_those_of_the_program(attention, feedforward):
    """A device's products, by its jaxpr, times the devices."""
    mesh = MeshConfig(context=4)
    model = model_of(attention, feedforward, mesh)
    with jax.sharding.use_abstract_mesh(lane_mesh(jax.devices()[:4], mesh).abstract_mesh):
        counted = count_jaxpr(
            lambda p, t: jax.value_and_grad(lambda p: model.loss(p, t, 0.0)[0])(p),
            {path: jax.ShapeDtypeStruct(spec.shape, np.float32) for path, spec in model.stored.items()},
            jax.ShapeDtypeStruct((8, LENGTH + 1), np.int32),
        )
    assert model.executed_flops_per_token * 8 * LENGTH == 4 * counted
    assert keys_multiplied_around(LENGTH, None, 4) == LENGTH, "the last device's, by all"


def test_a_sequence_that_does_not_divide_is_said():
    said = (
        r"mesh.context = 3 does not divide time = 16: set data.sequence_length to a multiple of it, or lower"
    )
    with pytest.raises(UserError, match=said):
        model_of(("mha", {}), mesh=MeshConfig(context=3))


def test_images_have_no_sequence_of_tokens():
    config = Config(
        model=ModelConfig(kind=Kind.dit, patch=2, width=16, layers=1, heads=2, head_width=8, ffn=16),
        data=DataConfig(sequence_length=4),
        mesh=MeshConfig(context=2),
    )
    with pytest.raises(UserError, match=r"mesh.context=2 splits sequences of tokens, and images are none"):
        build(config, 10, image=(4, 4, 1))


def test_a_mesh_without_parts_has_no_axis_for_them():
    assert "context" not in lane_mesh(jax.devices()[:2], MeshConfig(2)).axis_names
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 1, 2, 1, 2))
    assert mesh.axis_names == ("data", "fsdp", "context", "tensor", "expert")
    assert mesh.devices.shape == (2, 1, 2, 2, 1)
