"""A sequence over several devices is the same mathematics as on one."""

from typing import Any

import jax
import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    ModelConfig,
    ModuleConfig,
    Precision,
    Remat,
    ScaleConfig,
)
from harness.core.errors import UserError
from harness.models import build
from harness.models.attention.kernels.ring import mean_computed_keys_ring, num_hops
from harness.models.attention.kernels.softmax import causal_mask
from harness.models.counting.jaxpr import count_function_flops
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models.mechanisms import FEEDFORWARDS, MECHANISMS, OF_EACH
from tests.models.precise import in_float64, widened

SHAPE: dict[str, Any] = {"width": 8, "layers": 2, "heads": 4, "head_width": 4, "ffn": 12}
LENGTH, END = 16, 3


def model_of(
    attention, feedforward=("swiglu", {}), mesh=None, masked=False, compute=None, length=LENGTH, **changes
):
    config = Config(
        model=ModelConfig(
            attention=ModuleConfig(*attention), feedforward=ModuleConfig(*feedforward), **(SHAPE | changes)
        ),
        scale=ScaleConfig("tiny", 1, 1, 8),
        compute=compute or ComputeConfig(),
        data=DataConfig(sequence_length=length, mask_documents=masked),
        mesh=mesh or MeshConfig(),
    )
    return build(config, vocabulary=16, end_token=END if masked else None)


DRAWS = 16
"""Parameters and tokens that are tried, as one says little: a gated delta rule's gradients, in float32 on one
device, are wrong by 1e-6 to 2e-5 of the largest, and a few by much more."""


def answers(model, place):
    """Of each draw: loss and what it is of, and by path the gradients and logits."""

    @jax.jit
    def answer(params, tokens):
        graded = jax.value_and_grad(lambda p: model.loss(p, tokens, 1e-2), has_aux=True)(params)
        return (*graded, model.logits(params, tokens[:, :-1]))

    made = []
    for seed in range(DRAWS):
        tokens = np.random.default_rng(seed).integers(0, 16, (8, LENGTH + 1), np.int32)
        said, gradient, logits = jax.tree.map(np.asarray, answer(*place(model.init(seed), tokens)))
        said = np.concatenate([np.ravel(each) for each in jax.tree.leaves(said)])
        made.append((said, model.unstack(gradient) | {"logits": logits}))
    return [said for said, _ in made], [found for _, found in made]


def exact_answers(model):
    with in_float64():
        said, exact = answers(model, lambda params, tokens: (widened(params), tokens))
    assert all(array.dtype == np.float64 for array in exact[0].values())
    return said, exact


def split_answers(model, mesh):
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    shardings = param_shardings(lane, model.stored_specs)
    with jax.set_mesh(lane):
        return answers(model, lambda *given: jax.device_put(given, (shardings, batch_sharding(lane, 8))))


def distances(exact, found):
    """By path, in the middle of all draws: root of the mean square of what is wrong, as a share of that of
    the logits or of the largest gradient."""
    squares = {}
    for one, other in zip(exact, found, strict=True):
        size = {path: np.mean(np.square(array)) for path, array in one.items()}
        largest = max(size[path] for path in size if path != "logits")
        for path, array in one.items():
            of = size[path] if path == "logits" else largest
            squares.setdefault(path, []).append(np.mean(np.square(other[path] - array)) / of)
    return {path: np.sqrt(np.median(each)) for path, each in squares.items()}


def assert_as_on_one(attention, *meshes, compute=None, **given):
    """No further from float64 than 3 times what float32 on one device is; to 1e-7 a number is rounded."""
    plain = model_of(attention, **given)
    exactly, exact = exact_answers(plain)
    alone = distances(exact, answers(plain, lambda *given: given)[1])
    for mesh in meshes:
        said, found = split_answers(model_of(attention, mesh=mesh, compute=compute, **given), mesh)
        np.testing.assert_allclose(said, exactly, rtol=1e-6)
        for path, distance in distances(exact, found).items():
            assert distance < 3 * alone[path] + 1e-7, (mesh, path)


MESHES = (MeshConfig(context=2), MeshConfig(context=4), MeshConfig(2, 1, 2, 1, 2))
"""The last: data x tensor x context."""


def test_all_that_a_score_may_have_over_parts():
    """A window over three parts, documents, groups of heads, a cap and sinks."""
    options = {"window": 6, "kv_heads": 2, "softcap": 2.0, "sinks": True}
    assert_as_on_one(("window", options), MeshConfig(context=4), masked=True, layers=1)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["", "documents"])
@pytest.mark.parametrize("attention", MECHANISMS.values(), ids=MECHANISMS)
def test_attention(attention, masked):
    assert_as_on_one(attention, *MESHES, masked=masked)


@pytest.mark.slow
@pytest.mark.parametrize("options", FEEDFORWARDS.values(), ids=FEEDFORWARDS)
def test_experts(options):
    assert_as_on_one(("mha", {}), *MESHES, MeshConfig(expert=2, context=4), feedforward=("moe", options))


@pytest.mark.slow
@pytest.mark.parametrize("remat", Remat)
def test_scan_and_remat(remat):
    """Six layers, in which rounding grows."""
    assert_as_on_one(
        ("pattern", {"cycle": OF_EACH}),
        MeshConfig(fsdp=4, context=2),
        MeshConfig(tensor=2, context=4),
        compute=ComputeConfig(scan_layers=True, remat=remat),
        masked=True,
        layers=6,
    )


def assert_bfloat16_is_near(attention, mesh, **given):
    """Loss of about 2.8 nats within 0.01."""
    half = ComputeConfig(dtype=Precision.bfloat16, remat=Remat.dots)
    one, other = model_of(attention, **given), model_of(attention, mesh=mesh, compute=half, **given)
    params: Any = one.init(0)
    tokens: Any = np.random.default_rng(0).integers(0, 16, (8, LENGTH + 1), np.int32)
    lane = lane_mesh(jax.devices()[: mesh.devices], mesh)
    with jax.set_mesh(lane):
        placed = jax.device_put(
            (params, tokens), (param_shardings(lane, other.stored_specs), batch_sharding(lane, 8))
        )
        near, gradient = jax.jit(jax.value_and_grad(lambda p, t: other.loss(p, t, 0.0)[0]))(*placed)
    np.testing.assert_allclose(near, jax.jit(lambda: one.loss(params, tokens, 0.0)[0])(), atol=0.01)
    assert all(array.dtype == np.float32 for array in gradient.values())


def test_bfloat16_is_near_float32():
    """XLA's CPU compiler ends the process where gradients are summed over the parts in bfloat16. Of a single
    head JAX forgets what splits it."""
    assert_bfloat16_is_near(("mha", {"sinks": True}), MeshConfig(data=2, context=2), layers=1, heads=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mla", "gated_delta", "window-chunks"])
def test_each_in_bfloat16(name):
    assert_bfloat16_is_near(MECHANISMS[name], MeshConfig(data=2, context=2), masked=True)


@pytest.mark.slow
def test_one_head_of_keys():
    assert_as_on_one(("gqa", {"kv_heads": 1}), MeshConfig(data=2, context=4))


@pytest.mark.slow
@pytest.mark.parametrize("remat", [Remat.none, Remat.full])
def test_what_a_device_keeps_is_of_its_own_part(remat):
    """As many tokens each on 4 devices and on 8: never scores, masks or keys of all parts."""
    four, eight = (temporary_bytes(devices, 128 * devices, remat) for devices in (4, 8))
    assert eight < 1.05 * four


def temporary_bytes(devices, length, remat):
    mesh = MeshConfig(context=devices)
    compute = ComputeConfig(remat=remat, scan_layers=True)
    model = model_of(("mha", {}), mesh=mesh, compute=compute, length=length, layers=3)
    lane = lane_mesh(jax.devices()[:devices], mesh)
    shardings = param_shardings(lane, model.stored_specs)
    params = {
        path: jax.ShapeDtypeStruct(spec.shape, np.float32, sharding=shardings[path])
        for path, spec in model.stored_specs.items()
    }
    tokens = jax.ShapeDtypeStruct((8, length + 1), np.int32, sharding=batch_sharding(lane, 8))
    with jax.set_mesh(lane):
        graded = jax.jit(jax.grad(lambda p, t: model.loss(p, t, 0.0)[0])).lower(params, tokens)
    return graded.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("length", "devices"), [(16, 2), (16, 4), (24, 8)])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 4, 5, 9, 16])
def test_keys_come_from_all_parts_that_a_query_sees_and_no_others(length, devices, window):
    at = np.arange(length)
    query, key = np.nonzero(np.asarray(causal_mask(at, at, window)))
    part = length // devices
    assert num_hops(part, window, devices) == (query // part - key // part).max()


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
        counted = count_function_flops(
            lambda p, t: jax.value_and_grad(lambda p: model.loss(p, t, 0.0)[0])(p),
            {path: jax.ShapeDtypeStruct(spec.shape, np.float32) for path, spec in model.stored_specs.items()},
            jax.ShapeDtypeStruct((8, LENGTH + 1), np.int32),
        )
    assert model.executed_flops_per_token * 8 * LENGTH == 4 * counted
    assert mean_computed_keys_ring(LENGTH, None, 4) == LENGTH, "the last device's, by all"


def test_a_sequence_that_does_not_divide_is_said():
    said = (
        r"mesh.context = 3 does not divide time = 16: set data.sequence_length to a multiple of it, or lower"
    )
    with pytest.raises(UserError, match=said):
        model_of(("mha", {}), mesh=MeshConfig(context=3))


@pytest.mark.parametrize("axis", ["data", "context"])
def test_an_axis_without_devices_is_said(axis):
    with pytest.raises(UserError, match=f"mesh.{axis}=0: out of range. Give a finite number, at least 1"):
        compose([f"mesh.{axis}=0"])


def test_images_have_no_sequence_of_tokens():
    config = Config(
        model=ModelConfig(kind="dit", patch=2, width=16, layers=1, heads=2, head_width=8, ffn=16),
        data=DataConfig(sequence_length=4),
        mesh=MeshConfig(context=2),
    )
    with pytest.raises(UserError, match=r"mesh.context=2 splits sequences of tokens, but data are images"):
        build(config, 10, image=(4, 4, 1))


def test_a_mesh_without_parts_has_no_axis_for_them():
    assert "context" not in lane_mesh(jax.devices()[:2], MeshConfig(2)).axis_names
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 1, 2, 1, 2))
    assert mesh.axis_names == ("data", "fsdp", "context", "tensor", "expert")
    assert mesh.devices.shape == (2, 1, 2, 2, 1)
