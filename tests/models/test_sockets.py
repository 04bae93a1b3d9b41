"""Blocks, embeddings, heads, objectives and positions of one's own, and what mechanisms are told."""

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config.schema.run import ComputeConfig, ModuleConfig, Remat
from harness.core.errors import UserError
from harness.extend import (
    ObjectiveLoss,
    SideOutputs,
    SwiGLU,
    cross_entropy,
    lookup,
    register_attention,
    register_block,
    register_embedding,
    register_feedforward,
    register_head,
    register_objective,
    register_position,
    shift_time,
    weight,
    zeros,
)
from harness.models.attention.grouped_query import GroupedOptions, SoftmaxAttention
from harness.models.blocks.pre_norm import PreNorm
from harness.models.layers import rms_normalise
from harness.models.step_clock import StepClock
from harness.models.text.objective import Forward
from harness.models.text.text_model import TextModel

CLOCK = StepClock(np.int32(3), np.float32(0.25), np.uint32(7))


@pytest.fixture
def rows():
    return jnp.asarray(np.random.default_rng(7).integers(0, 16, (2, 12), dtype=np.int32))


def variant(model, **nodes):
    """The same decoder with other nodes of its config; `objective` is one of them."""
    objective = nodes.pop("objective", model.spec.objective)
    config = replace(model.spec.config, **{key: ModuleConfig(name) for key, name in nodes.items()})
    return TextModel.assemble(replace(model.spec, config=config, objective=objective), model.compute)


def start(model, seed=0):
    return {path: jnp.asarray(value) for path, value in model.init(seed).items()}


@register_block("test_lanes")
class Parallel(nnx.Module):
    """Both branches read one norm."""

    def __init__(self, context, options):
        self.norm = context.norm(context.shape.width)

    def __call__(self, x_BTD, attend, feed):
        read_BTD = self.norm(x_BTD)
        return x_BTD + attend(read_BTD) + feed(read_BTD)


class Lanes(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return x_BTD, x_BTD

    def close(self, stream, x0_BTD):
        return (stream[0] + stream[1]) / 2 + 0 * x0_BTD


@register_block("test_two_lanes", stream=Lanes, scans=True)
class TwoLanes(nnx.Module):
    """Attention reads one lane and the feed-forward layer the other; both write to both."""

    def __init__(self, context, options):
        self.norms = nnx.List([context.norm(context.shape.width) for _ in range(2)])

    def __call__(self, stream, attend, feed):
        a_BTD, b_BTD = stream
        y_BTD = attend(self.norms[0](a_BTD)) + feed(self.norms[1](b_BTD))
        return a_BTD + y_BTD, b_BTD + y_BTD


@register_block("test_loop", order=lambda options, layers: (0, *range(layers), layers - 1))
class Loop(PreNorm):
    """The first and the last layer twice."""

    def __call__(self, x_BTD, attend, feed, visit, x0_BTD):
        return super().__call__(x_BTD + visit * 0.5 * x0_BTD, attend, feed)


@register_attention("test_value_residual", GroupedOptions, gives=("value_BTGK",))
class ValueResidual(SoftmaxAttention):
    """Its output is half that of its own values and half that of the first layer's."""

    def __call__(self, x_BTD, rotary, value_BTGK):  # pyright: ignore[reportIncompatibleMethodOverride]
        own = jnp.sum(x_BTD, axis=-1)[..., None, None]
        mixed = own if value_BTGK is None else (own + value_BTGK) / 2
        y_BTD = super().__call__(x_BTD, rotary) + mixed[..., 0]
        return y_BTD, SideOutputs(gives={"value_BTGK": own}) if value_BTGK is None else SideOutputs()


@register_embedding("test_bigram", gives=("bigram_BTD",))
class Bigram(nnx.Module):
    def __init__(self, context, options):
        self.rows = weight((8, context.shape.width), ("vocabulary", "width"), fan_in=context.shape.width)

    def __call__(self, x_BTD, tokens_BT, document_BT):
        pair_BT = (tokens_BT * 3 + shift_time(tokens_BT, 1, document_BT)) % 8
        row_BTD = lookup(self.rows, pair_BT, x_BTD.dtype)
        return x_BTD + row_BTD, SideOutputs(gives={"bigram_BTD": row_BTD})


@register_embedding("test_thin", table_width=lambda context, options: 3)
class Thin(nnx.Module):
    def __init__(self, context, options):
        self.up = weight((3, context.shape.width), (None, "width"), fan_in=3)

    def __call__(self, x_BTD):
        return x_BTD @ self.up[...]


@register_head("test_softcap")
class Softcap(nnx.Module):
    def __init__(self, context, options):
        pass

    def __call__(self, x_BTD, unembed):
        return 2 * jnp.tanh(unembed(x_BTD) / 2)


@register_objective("test_mtp")
class TwoAhead(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.layer = new_layer(context.shape.layers)
        self.merge = zeros((context.shape.width, context.shape.width), ("width", None))

    def __call__(self, forward, tokens_BT1, progress):
        run = forward(tokens_BT1[:, :-1])
        loss_BT = cross_entropy(run.logits_BTV, tokens_BT1[:, 1:])
        x_BTD = run.hidden_BTD[:, :-1] + forward.embed(tokens_BT1[:, 1:-1]) @ self.merge[...]
        logits_BTV = forward.unembed(forward.apply_layer(self.layer, x_BTD, tokens_BT1[:, :-2]))
        ahead = jnp.mean(cross_entropy(logits_BTV, tokens_BT1[:, 2:]))
        return ObjectiveLoss(jnp.mean(loss_BT) + (1 - progress) * ahead, loss_BT)


@register_feedforward("test_dropout")
class Dropout(SwiGLU):
    def __call__(self, x_BTD, key):  # pyright: ignore[reportIncompatibleMethodOverride]
        y_BTD = super().__call__(x_BTD)
        if key is None:
            return y_BTD
        return y_BTD * jax.random.bernoulli(key, 0.5, y_BTD.shape) * 2


@register_position("test_still")
def still(context, options):
    return jnp.zeros(context.shape.head_width // 2)


def test_two_lanes_equal_a_loop_in_numpy(small, rows):
    model = variant(small(layers=2), block="test_two_lanes")
    params = start(model)
    decoder: Any = model.module(params)
    x0 = decoder.embed_rows(rows[:, :-1])
    a = b = x0
    rotary = decoder.rotary(rows.shape[1] - 1)
    for layer in decoder.layers:
        y = layer.attention(rms_normalise(a, 1e-6), rotary) + layer.feedforward(rms_normalise(b, 1e-6))
        a, b = a + y, b + y
    expected = rms_normalise((a + b) / 2, 1e-6) @ params["embedding"].T
    got = model.logits(params, rows[:, :-1])
    np.testing.assert_allclose(got, expected[..., : got.shape[-1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", ["test_two_lanes", "pre_norm"])
@pytest.mark.parametrize("remat", [Remat.none, Remat.full])
def test_a_scan_of_a_stream_equals_a_loop(small, rows, block, remat):
    loop = variant(small(layers=4), block=block)
    compute = ComputeConfig(scan_layers=True, remat=remat)
    scan = TextModel.assemble(loop.spec, compute)
    one, other = (jax.grad(lambda p, m=m: m.loss(p, rows, 0.0)[0])(start(m)) for m in (loop, scan))
    np.testing.assert_allclose(
        one["layers.2.attention.query"], other["repeats.0.attention.query"][2], rtol=1e-4, atol=1e-6
    )


def test_a_loop_over_layers_counts_and_applies_each_visit(small, rows):
    plain, looped = small(layers=3), variant(small(layers=3), block="test_loop")
    assert looped.spec.order == (0, 0, 1, 2, 2)
    assert looped.param_specs.keys() == plain.param_specs.keys()
    layers = plain.flops_per_token - 3 * 2 * plain.shape.width * plain.spec.table_rows
    assert looped.flops_per_token - plain.flops_per_token == pytest.approx(layers * 2 / 3)
    assert not np.allclose(looped.logits(start(looped), rows), plain.logits(start(plain), rows))


def test_what_one_layer_gives_the_next_ones_read(small, rows):
    model = small("test_value_residual", options={"kv_heads": 2}, layers=3)
    assert model.spec.scan_obstacle
    loss, _ = model.loss(start(model), rows, 0.0)
    assert np.isfinite(loss)


def test_an_embedding_reads_tokens_and_its_table_is_no_layer(small, rows):
    model = variant(small(), embedding="test_bigram")
    assert model.non_embedding_parameters == small().non_embedding_parameters
    assert model.param_specs["input.rows"].shape == (8, 8)
    changed = rows.at[:, -1].set((rows[:, -1] + 1) % 16)
    before, after = (model.token_losses(start(model), each) for each in (rows, changed))
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])


def test_a_table_may_be_thinner_than_the_model(small, rows):
    model = variant(small(tie_embeddings=False), embedding="test_thin")
    assert model.param_specs["embedding"].shape[1] == 3
    assert np.isfinite(model.loss(start(model), rows, 0.0)[0])


def test_a_head_bounds_what_is_judged(small, rows):
    model = variant(small(), head="test_softcap")
    logits = model.logits({path: 100 * value for path, value in start(model).items()}, rows)
    assert jnp.max(jnp.abs(logits)) <= 2


def test_an_objective_is_minimised_and_not_judged(small, rows):
    plain = small()
    model = variant(plain, objective=ModuleConfig("test_mtp"))
    params = start(model)
    assert model.asks_clock
    assert not plain.asks_clock
    loss, parts = model.loss(params, rows, 0.0, CLOCK)
    assert loss > parts["loss"]
    np.testing.assert_array_equal(model.token_losses(params, rows), plain.token_losses(start(plain), rows))
    grads = jax.grad(lambda p: model.loss(p, rows, 0.0, CLOCK)[0])(params)
    assert all(jnp.any(grads[path] != 0) for path in grads if path.startswith("objective.layer.attention"))


def test_a_layer_of_an_objective_stays_within_documents_and_experts_count_each_pass(small):
    plain = small(end=3, feedforward=ModuleConfig("moe", {"balance": "auxiliary"}))
    model = variant(plain, objective=ModuleConfig("test_mtp"))
    decoder: Any = model.module(start(model))
    tokens_BT = jnp.asarray([[1, 2, 3, 4, 5, 6]])
    x_BTD = jax.random.normal(jax.random.key(0), (1, 6, model.shape.width))
    forward = Forward(decoder, None)
    whole_BTD = forward.apply_layer(decoder.objective.layer, x_BTD, tokens_BT)
    other_BTD = forward.apply_layer(decoder.objective.layer, x_BTD.at[:, :3].set(0), tokens_BT)
    np.testing.assert_allclose(whole_BTD[:, 3:], other_BTD[:, 3:], rtol=1e-5, atol=1e-6)
    assert len(forward.auxiliary) == 2
    both = [forward(rows) and forward.signals for rows in (tokens_BT, tokens_BT[:, ::-1])]
    alone = Forward(decoder, None)
    alone(tokens_BT[:, ::-1])
    for path, stats in both[1].items():
        expected = (both[0][path].load_E + alone.signals[path].load_E) / 2
        np.testing.assert_allclose(stats.load_E, expected, rtol=1e-6)


def test_the_products_of_an_objective_are_counted(small):
    plain = small(layers=4)
    model = variant(plain, objective=ModuleConfig("test_mtp"))
    D, V = plain.shape.width, plain.spec.table_rows
    layers = plain.flops_per_token - 3 * 2 * D * V
    share = 15 / 16  # its passes have one token less
    expected = 3 * share * (2 * D * V + 2 * D * D) + layers / 4
    assert model.flops_per_token - plain.flops_per_token == pytest.approx(expected, rel=0.15)


def test_a_key_differs_by_layer_and_step_and_judging_has_none(small, rows):
    model = small(feedforward=ModuleConfig("test_dropout"))
    params = start(model)
    losses = [model.loss(params, rows, 0.0, CLOCK._replace(step=step))[0] for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    judged = small().token_losses(start(small()), rows)
    np.testing.assert_array_equal(model.token_losses(params, rows), judged)


def test_positions_that_stand_still_are_no_positions(small, rows):
    model = variant(small(), position="test_still")
    flipped = rows[:, :3][:, ::-1]
    a, b = (model.logits(start(model), each)[:, -1] for each in (rows[:, :3], flipped))
    assert a.shape == b.shape
    assert model.spec.scan_obstacle


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("tokn_BT", "asks for 'tokn_BT', which nothing tells it: did you mean 'tokens_BT'?"),
        ("value_BTGK", "which nothing tells it"),
    ],
)
def test_a_wrong_wish_is_one_sentence(small, asked, message):
    exec(f"def call(self, x_BTD, rotary, {asked}):\n    return x_BTD", scope := {})

    class Wishes(SoftmaxAttention):
        __call__ = scope["call"]

    register_attention(f"test_wish_{asked}", GroupedOptions)(type(f"Wishes{asked}", (Wishes,), {}))
    with pytest.raises(UserError, match=re.escape(message)):
        small(f"test_wish_{asked}", options={"kv_heads": 2})
