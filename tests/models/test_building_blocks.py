"""The building blocks of questions: shifts and convolutions in time, attention in steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.models import layers
from harness.models.attention.kernels import blocks, scores, softmax
from harness.models.layers import Rotary
from harness.models.parameters import param_specs
from harness.models.sequence.recurrence import recur
from harness.models.sequence.time_shift import ShortConvolution, shift_time

DOCUMENTS = np.array([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1]])


def drawn(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("documents", [None, DOCUMENTS])
@pytest.mark.parametrize("by", [0, 1, 3, 9])
def test_a_shift_reads_earlier_tokens_of_the_document(by, documents):
    x_BTHK = drawn(2, 8, 3, 2)
    shifted = shift_time(jnp.asarray(x_BTHK), by, None if documents is None else jnp.asarray(documents))
    for b, t in np.ndindex(2, 8):
        is_there = t >= by and (documents is None or documents[b, t - by] == documents[b, t])
        np.testing.assert_array_equal(shifted[b, t], x_BTHK[b, t - by] if is_there else 0 * x_BTHK[b, t])


def test_a_convolution_is_the_identity_at_first_and_stops_at_documents():
    convolution, x_BTD = ShortConvolution((5,), ("width",), taps=3), jnp.asarray(drawn(2, 8, 5))
    assert param_specs(convolution)["taps"].shape == (3, 5)
    convolution.taps.set_value(jnp.zeros((3, 5)))
    np.testing.assert_array_equal(convolution(x_BTD, None), x_BTD)
    taps = drawn(3, 5)
    convolution.taps.set_value(jnp.asarray(taps))
    expected = np.array(x_BTD)
    for b, t, j in np.ndindex(2, 8, 3):
        if t >= j and DOCUMENTS[b, t - j] == DOCUMENTS[b, t]:
            expected[b, t] += taps[j] * x_BTD[b, t - j]
    np.testing.assert_allclose(convolution(x_BTD, jnp.asarray(DOCUMENTS)), expected, atol=1e-6)


def test_a_large_table_turns_as_a_constant_one_does(monkeypatch):
    constant = Rotary.table(64, 16, 1e4)
    monkeypatch.setattr(layers, "LARGEST_TABLE", 0)
    computed = Rotary.table(64, 16, 1e4)
    np.testing.assert_allclose(constant.cos_TJ, computed.cos_TJ, atol=1e-5)
    np.testing.assert_allclose(constant.sin_TJ, computed.sin_TJ, atol=1e-5)


def test_a_rotation_multiplies_complex_numbers_and_its_gradient_turns_back():
    x_BHTK, slope_BHTK = (jnp.asarray(drawn(2, 3, 8, 6)) * factor for factor in (1, 2))
    turn_TJ = np.exp(1j * np.arange(8)[:, None] * 1e4 ** (-np.arange(0, 6, 2) / 6))

    def turned(x_BHTK, turn_TJ):
        low, high = np.split(np.asarray(x_BHTK, np.float64), 2, axis=-1)
        z = (low + 1j * high) * turn_TJ
        return np.concatenate([z.real, z.imag], axis=-1)

    y_BHTK, backward = jax.vjp(Rotary.table(8, 6, 1e4), x_BHTK)
    np.testing.assert_allclose(y_BHTK, turned(x_BHTK, turn_TJ), atol=2e-6)
    np.testing.assert_allclose(backward(slope_BHTK)[0], turned(slope_BHTK, turn_TJ.conj()), atol=4e-6)


@pytest.mark.parametrize("documents", [None, DOCUMENTS])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_in_steps_is_attention(window, documents):
    query, key, value = (jnp.asarray(drawn(2, *shape)) for shape in ((4, 8, 6), (2, 8, 6), (2, 8, 5)))
    document_BT = None if documents is None else jnp.asarray(documents)
    rotary = Rotary.table(8, 6, 1e4).with_documents(document_BT)
    visible = scores.visible_keys(rotary, window)
    weights = scores.softmax_weights(scores.attention_scores(query, key), visible)
    mixed = scores.weighted_values(weights, value)
    expected = softmax.attend(query, key, value, window, document_BT=document_BT)
    np.testing.assert_allclose(mixed, expected, atol=2e-6)


def test_a_query_without_keys_gets_nothing_and_finite_gradients():
    score = jnp.asarray(drawn(1, 1, 2, 2))
    visible = jnp.array([[[[False, False], [True, True]]]])
    weights = scores.softmax_weights(score, visible)
    assert not weights[0, 0, 0].any()
    assert weights[0, 0, 1].sum() == pytest.approx(1)
    gradient = jax.grad(lambda score: jnp.sum(scores.softmax_weights(score, visible) ** 2))(score)
    assert np.isfinite(gradient).all()
    assert gradient[0, 0, 1].any()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_best_keys_are_the_highest_of_those_before(count):
    score = drawn(2, 2, 8, 8)
    chosen = scores.best_keys(jnp.asarray(score), scores.visible_keys(Rotary.table(8, 4, 1e4)), count)
    for b, h, t in np.ndindex(2, 2, 8):
        expected = np.argsort(-score[b, h, t, : t + 1])[:count]
        assert set(np.flatnonzero(chosen[b, h, t])) == set(expected)


def test_a_recurrence_starts_again_at_each_document():
    decay_BTH, x_BTHK = jnp.asarray(np.abs(drawn(2, 8, 3)) % 1), jnp.asarray(drawn(2, 8, 3, 2))

    def step(state_BHK, decay_BH, x_BHK):
        state_BHK = decay_BH[..., None] * state_BHK + x_BHK
        return state_BHK, 2 * state_BHK

    outputs = recur(step, (2,), jnp.asarray(DOCUMENTS), decay_BTH, x_BTHK)
    for b in range(2):
        state = np.zeros((3, 2))
        for t in range(8):
            is_new = t > 0 and DOCUMENTS[b, t] != DOCUMENTS[b, t - 1]
            state = np.asarray(decay_BTH)[b, t, :, None] * (0 if is_new else state) + np.asarray(x_BTHK)[b, t]
            np.testing.assert_allclose(outputs[b, t], 2 * state, atol=1e-6)


@pytest.mark.parametrize("documents", [None, DOCUMENTS])
def test_earlier_blocks_lie_whole_in_the_document_before_the_own_block(documents):
    rotary = Rotary.table(8, 4, 1e4).with_documents(None if documents is None else jnp.asarray(documents))
    earlier = np.broadcast_to(blocks.earlier_blocks(rotary, 3), (2, 1, 8, 3))
    own = blocks.own_block(8, 3)
    for b, t, n in np.ndindex(2, 8, 3):
        keys = np.arange(3 * n, min(3 * n + 3, 8))
        in_document = documents is None or (documents[b, keys] == documents[b, t]).all()
        assert earlier[b, 0, t, n] == (n < t // 3 and in_document)
        assert own[t, n] == (t in keys)
    x_BGTK = drawn(2, 2, 8, 4)
    np.testing.assert_allclose(
        blocks.block_means(jnp.asarray(x_BGTK), 3)[:, :, 1], x_BGTK[:, :, 3:6].mean(2), atol=1e-6
    )
    assert np.array_equal(blocks.spread_blocks(own[None, None], 3, 8)[0, 0, 4], np.arange(8) // 3 == 1)
