"""The diffusion transformer against a slow reference, its flow against numpy, and how it is executed."""

import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    Kernels,
    LossConfig,
    MatchBy,
    ModelConfig,
    ModuleConfig,
    OptimizerConfig,
    Precision,
    Remat,
    ScaleConfig,
)
from harness.core.errors import UserError
from harness.data.images.image_corpus import TIME_UNITS, pack_rows
from harness.models import ImageModel, build
from harness.models.counting.jaxpr import count_function_flops
from harness.models.diffusion import flow
from harness.models.diffusion.diffusion_transformer import TIME_FEATURES
from harness.models.diffusion.flow import integrate_euler, patchify, unpatchify
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models.reference import rms_norm, silu

IMAGE, LABELS = (6, 4, 3), 5
CONDITIONINGS = ("adaptive_norm", "in_context")
SHAPE = {"width": 8, "layers": 3, "heads": 2, "head_width": 4, "ffn": 12}


def model_of(name, compute=None, length=6, loss=None, target=3_000, **changes):
    shape = {"patch": 2, **SHAPE, **changes}
    config = Config(
        model=ModelConfig(kind="dit", conditioning=ModuleConfig(name), **shape),
        scale=ScaleConfig("tiny", target, 10_000, 4),
        compute=compute or ComputeConfig(),
        data=DataConfig("test", sequence_length=length),
        optimizer=OptimizerConfig(learning_rate=0.1),
        loss=loss or LossConfig(),
    )
    model = build(config, LABELS, image=IMAGE)
    assert isinstance(model, ImageModel)
    return model


def examples(count=4) -> Any:
    draw = np.random.default_rng(3)
    images = draw.integers(0, 256, (count, *IMAGE)).astype(np.uint8)
    keys = draw.integers(0, 2**63, count).astype(np.uint64)
    return pack_rows(keys, draw.uniform(0.1, 0.9, count), draw.integers(0, LABELS, count), images)


def scrambled(params):
    """Nothing at zero or one, so that what is left out shows."""
    noise = np.random.default_rng(5)
    return {
        path: array + noise.normal(0, 0.2, array.shape).astype(np.float32) for path, array in params.items()
    }


def split(image_HWC, side):
    """Patches by hand."""
    height, width, _ = image_HWC.shape
    return np.array(
        [
            image_HWC[y : y + side, x : x + side].ravel()
            for y in range(0, height, side)
            for x in range(0, width, side)
        ]
    )


def waves(position, count):
    angles = [position * 10_000 ** (-j / count) for j in range(count)]
    return [*np.cos(angles)], [*np.sin(angles)]


def attended(x_TD, w):
    out_TD = np.zeros_like(x_TD)
    for at, head in itertools.product(range(len(x_TD)), range(w["query"].shape[1])):
        query = rms_norm(x_TD[at] @ w["query"][:, head], w["query_norm.gain"])
        keys = [rms_norm(x @ w["key"][:, head], w["key_norm.gain"]) for x in x_TD]
        scores = np.exp([query @ key / np.sqrt(len(query)) for key in keys])
        mixed = sum(s * (x @ w["value"][:, head]) for s, x in zip(scores / scores.sum(), x_TD, strict=True))
        out_TD[at] += mixed @ w["output"][head]
    return out_TD


def fed(x_TD, w):
    return (silu(x_TD @ w["gate"]) * (x_TD @ w["up"])) @ w["down"]


def below(params, start):
    return {path.removeprefix(start): array for path, array in params.items() if path.startswith(start)}


def expected_velocity(params, patches_TI, time, label, name, layers=3):
    """One image, in float64."""
    params = {path: np.asarray(array, np.float64) for path, array in params.items()}
    cosines, sines = waves(1_000 * time, 32)
    time_D = silu(np.array(cosines + sines) @ params["time_in"]) @ params["time_out"]
    label_D = params["labels"][label]
    places = [
        np.concatenate([*waves(row, 2), *waves(column, 2)])
        for row, column in itertools.product(range(3), range(2))
    ]
    x_TD = patches_TI @ params["embedding"] + np.array(places)
    if name == "in_context":
        x_TD = np.concatenate([[time_D, label_D], x_TD])
    for index in range(layers):
        own = below(params, f"layers.{index}.")
        parts = conditions(own, time_D + label_D, name)
        for branch, key, (enter, gate) in zip(
            (attended, fed), ("attention.", "feedforward."), parts, strict=True
        ):
            x_TD = x_TD + gate * branch(enter(x_TD), below(own, key))
    ((enter, _),) = conditions(params, time_D + label_D, name)
    return enter(x_TD)[-6:] @ params["head"]


def conditions(own, condition_D, name):
    if name == "in_context":
        gains = [own[path] for path in sorted(own) if path.startswith("conditioning.norms")]
        return [(lambda x, gain=gain: rms_norm(x, gain), 1) for gain in gains]
    made = np.einsum("d,dje->je", silu(condition_D), own["conditioning.modulation"])
    return [
        (lambda x, part=part: rms_norm(x, 1) * (1 + part[1]) + part[0], part[2] if len(part) > 2 else 1)
        for part in (made[:3], made[3:])
        if len(part)
    ]


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_losses_equal_a_reference_in_numpy(name):
    """The whole way from rows: patches, noise, time, layers, squared error; within float32."""
    model = model_of(name)
    params, rows_BR = scrambled(model.init(0)), examples()
    losses_BT = np.asarray(jax.jit(model.token_losses)(params, rows_BR))
    for row_R, losses_T in zip(rows_BR, losses_BT, strict=True):
        key = jax.random.wrap_key_data(row_R[:2].view(np.uint32), impl="threefry2x32")
        noise_TI = np.asarray(jax.random.normal(key, (6, 12)), np.float64)
        image_TI = split(row_R[4:].reshape(IMAGE) / 127.5 - 1, 2)
        time = row_R[2] / TIME_UNITS
        made_TI = expected_velocity(params, (1 - time) * image_TI + time * noise_TI, time, row_R[3], name)
        np.testing.assert_allclose(losses_T, ((made_TI - (noise_TI - image_TI)) ** 2).mean(1), rtol=2e-4)
    total, parts = jax.jit(lambda p: model.loss(p, rows_BR, 0.0))(params)
    assert float(total) == float(parts["loss"]) == pytest.approx(losses_BT.mean(), rel=1e-6)


def test_patches_are_cut_and_joined_again():
    shape = model_of("in_context").shape
    image_HWC = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    patches_BTI = patchify(jnp.asarray(image_HWC).reshape(1, -1), shape)
    np.testing.assert_array_equal(patches_BTI[0], split(image_HWC, 2))
    np.testing.assert_array_equal(unpatchify(patches_BTI, shape)[0], image_HWC)


def test_adaptive_norm_starts_as_the_identity_and_every_model_at_velocity_zero():
    rows_BR = examples()
    adaptive = model_of("adaptive_norm")
    module: Any = adaptive.module(cast(Any, adaptive.init(0)))
    layer = module.layers[0]
    x_BTD = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)
    np.testing.assert_array_equal(layer(x_BTD, jnp.ones((2, 1, 8)))[0], x_BTD)
    losses = [jax.jit(m.token_losses)(m.init(0), rows_BR) for m in (adaptive, model_of("in_context"))]
    target_BTI = flow.FlowExamples.from_rows(jnp.asarray(rows_BR), adaptive.shape).velocity_BTI
    for each in losses:
        np.testing.assert_allclose(each, jnp.mean(target_BTI**2, axis=-1), rtol=1e-6)


def test_what_both_have_starts_equal_and_noise_is_of_the_key_alone():
    one, other = (model_of(name) for name in CONDITIONINGS)
    starts = one.init(3), other.init(3)
    shared = starts[0].keys() & starts[1].keys()
    assert {"embedding", "labels", "time_in", "layers.2.attention.query", "layers.0.feedforward.up"} <= shared
    assert all(np.array_equal(starts[0][path], starts[1][path]) for path in shared)
    words = examples()[:, :2]
    noise = jax.jit(lambda w: flow.draw_noise(w, one.shape))
    np.testing.assert_array_equal(noise(words)[2], noise(words[[2, 0, 0, 0]])[0])
    assert abs(float(noise(words).std()) - 1) < 0.1


def test_a_straight_line_is_followed_exactly_and_a_linear_field_as_euler_does():
    noise, image = jnp.array([[[3.0, -1.0]]]), jnp.array([[[0.5, 0.25]]])
    np.testing.assert_allclose(integrate_euler(lambda x, t: noise - image, noise, 7), image, rtol=1e-6)
    np.testing.assert_allclose(integrate_euler(lambda x, t: x, noise, 10), noise * 0.9**10, rtol=1e-6)
    seen = integrate_euler(lambda x, t: t * jnp.ones_like(x), jnp.zeros_like(noise), 4)
    np.testing.assert_allclose(seen, -np.ones((1, 1, 2)) * (1 + 0.75 + 0.5 + 0.25) / 4)


def test_guidance_goes_from_no_label_past_the_label():
    """At one step everything is linear in the guidance."""
    model, rows_BR = model_of("adaptive_norm"), examples()
    params = scrambled(model.init(0))
    made = jax.jit(lambda w: model.sample(params, rows_BR, w, 1))
    nothing, told, twice = (made(jnp.float32(w)) for w in (0, 1, 2))
    np.testing.assert_allclose(twice - told, told - nothing, atol=1e-4)
    unlabelled = rows_BR.copy()
    unlabelled[:, 3] = LABELS - 1
    np.testing.assert_allclose(nothing, model.sample(params, unlabelled, jnp.float32(1), 1), atol=1e-5)
    assert not np.allclose(told, nothing, atol=1e-2)


EXECUTIONS = list(itertools.product(CONDITIONINGS, (False, True), Remat))


@pytest.mark.parametrize(("name", "layers", "remat"), EXECUTIONS)
def test_executed_flops_equal_the_jaxpr(name, layers, remat):
    model = model_of(name, ComputeConfig(scan_layers=layers, remat=remat))
    params = {
        path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in model.stored_specs.items()
    }
    rows_BR = jax.ShapeDtypeStruct((2, model.row_length), jnp.int32)

    def step(params, rows_BR):
        return jax.value_and_grad(lambda p: model.loss(p, rows_BR, 0.0)[0])(params)

    assert count_function_flops(step, params, rows_BR) == round(model.executed_flops_per_token * 12, 3)
    if remat is Remat.none:
        unasked = 2 * 8 * (model.shape.values + TIME_FEATURES / model.shape.patches)
        assert model.executed_flops_per_token + unasked == pytest.approx(model.flops_per_token)


def loss_and_gradient(model, params, rows_BR):
    return jax.jit(jax.value_and_grad(lambda p, r: model.loss(p, r, 0.0)[0]))(params, rows_BR)


def assert_together_as_alone(name, compute):
    """Loss and every gradient on 2 x 2 x 2 devices as on one, plain, within float32 summation order."""
    plain, model, rows_BR = model_of(name), model_of(name, compute), examples(8)
    params = scrambled(plain.init(0))
    alone, gradient = loss_and_gradient(plain, params, rows_BR)
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model.stack(params), param_shardings(mesh, model.stored_specs))
        together, parted = loss_and_gradient(model, placed, jax.device_put(rows_BR, batch_sharding(mesh, 8)))
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    for path, array in model.unstack(parted).items():
        np.testing.assert_allclose(gradient[path], array, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive_norm", "in_context"])
def test_scan_remat_and_eight_devices_equal_plain(name):
    assert_together_as_alone(name, ComputeConfig(scan_layers=True, remat=Remat.dots))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers", "remat"), EXECUTIONS)
def test_every_execution_equals_plain(name, layers, remat):
    assert_together_as_alone(name, ComputeConfig(scan_layers=layers, remat=remat))


def test_bfloat16_is_near_float32():
    wide, narrow = (
        model_of("adaptive_norm", ComputeConfig(dtype=precision))
        for precision in (Precision.float32, Precision.bfloat16)
    )
    params, rows_BR = scrambled(wide.init(0)), examples()
    one, other = (np.asarray(jax.jit(m.token_losses)(params, rows_BR)) for m in (wide, narrow))
    assert other.dtype == np.float32
    np.testing.assert_allclose(one, other, rtol=0.1)
    assert not np.array_equal(one, other)


FREE = {"width": None, "layers": None, "heads": None, "ffn": None}


def test_variants_are_equal_in_parameters_or_in_flops():
    free = {**FREE, "head_width": 16, "target": 25_000}
    sizes = {m: [model_of(name, match=m, **free) for name in CONDITIONINGS] for m in MatchBy}
    for each in sizes[MatchBy.params]:
        assert each.non_embedding_parameters == pytest.approx(25_000, rel=0.005)
        assert each.parameters == sum(spec.size for spec in each.param_specs.values())
    one, other = sizes[MatchBy.flops]
    assert one.flops_per_token == pytest.approx(other.flops_per_token, rel=0.005)
    assert sizes[MatchBy.none][0].shape == sizes[MatchBy.none][1].shape
    assert len({(m.shape.width, m.shape.layers, m.shape.heads) for own in sizes.values() for m in own}) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length": 7}, "data.sequence_length=7 is not the number of patches"),
        ({"patch": 5}, "model.patch=5 does not divide images of 6 x 4"),
        ({"attention": ModuleConfig("gqa")}, "Leave model.attention at mha"),
        ({"base_width": 8}, "model.base_width=8"),
        ({"width": 6, "heads": 1, "head_width": 6}, "model.width=6 is not a multiple of 4"),
        ({"loss": LossConfig(z_loss=0.1)}, "loss.z_loss=0.1"),
        ({"logit_softcap": 30.0}, "model.logit_softcap=30.0 is for logits"),
        ({"compute": ComputeConfig(kernels=Kernels.fused)}, "attention of images is written out"),
    ],
)
def test_what_has_no_model_is_said(changes, said):
    with pytest.raises(UserError, match=said):
        model_of("adaptive_norm", **changes)


def test_text_and_images_are_not_mixed_up():
    text = Config(model=ModelConfig(kind="dit"), data=DataConfig("prose"))
    with pytest.raises(UserError, match="data=prose is text"):
        build(text, LABELS)
    with pytest.raises(UserError, match="Choose model=dit"):
        build(Config(data=DataConfig("digits")), LABELS, image=IMAGE)
