"""Each mechanism against a slow reference that was written without it."""

import jax
import numpy as np
import pytest

from harness.models.attention import core


def rms_norm(x, gain, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gain


def rotated(x_K, position, base=10_000.0):
    half = len(x_K) // 2
    out = np.empty_like(x_K)
    for k in range(half):
        angle = position * base ** (-2 * k / len(x_K))
        out[k] = x_K[k] * np.cos(angle) - x_K[k + half] * np.sin(angle)
        out[k + half] = x_K[k + half] * np.cos(angle) + x_K[k] * np.sin(angle)
    return out


def attention_at(x_TD, weights, position, window):
    """Output [D] of one position, head by head and key by key."""
    H = weights["query"].shape[1]
    sharing = H // weights["key"].shape[1]
    first = 0 if window is None else max(0, position - window + 1)
    out_D = 0.0
    for head in range(H):
        query = rms_norm(x_TD[position] @ weights["query"][:, head], weights["query_norm.gain"])
        query = rotated(query, position)
        scores, values = [], []
        for at in range(first, position + 1):
            key = rms_norm(x_TD[at] @ weights["key"][:, head // sharing], weights["key_norm.gain"])
            scores.append(query @ rotated(key, at) / np.sqrt(len(query)))
            values.append(x_TD[at] @ weights["value"][:, head // sharing])
        weight = np.exp(np.array(scores) - max(scores))
        out_D = out_D + (weight / weight.sum()) @ np.array(values) @ weights["output"][head]
    return out_D


def reference_logits(model, params, tokens_T, windows):
    """Logits [T, V] in float64, position by position; one window (or None) a layer."""
    params = {path: np.asarray(array, np.float64) for path, array in params.items()}
    x_TD = params["embedding"][tokens_T]
    for layer, window in enumerate(windows):
        own = {
            p.removeprefix(f"layers.{layer}."): a
            for p, a in params.items()
            if p.startswith(f"layers.{layer}.")
        }
        attention = {p.removeprefix("attention."): a for p, a in own.items()}
        normed_TD = rms_norm(x_TD, own["attention_norm.gain"])
        x_TD = x_TD + np.stack([attention_at(normed_TD, attention, t, window) for t in range(len(tokens_T))])
        normed_TD = rms_norm(x_TD, own["feedforward_norm.gain"])
        gate_TF = normed_TD @ own["feedforward.gate"]
        hidden_TF = gate_TF / (1 + np.exp(-gate_TF)) * (normed_TD @ own["feedforward.up"])
        x_TD = x_TD + hidden_TF @ own["feedforward.down"]
    return rms_norm(x_TD, params["norm.gain"]) @ params["embedding"].T


def scrambled(params):
    """Gains other than one, so that a gain that is left out shows."""
    noise = np.random.default_rng(5)
    return {
        path: array + noise.normal(0, 0.1, array.shape).astype(np.float32) for path, array in params.items()
    }


CASES = {
    "mha": ("mha", {}, [None, None, None]),
    "gqa": ("gqa", {"kv_heads": 2}, [None, None, None]),
    "hybrid in chunks": ("hybrid", {"window": 4, "global_every": 2}, [4, None, 4]),
    "hybrid masked": ("hybrid", {"window": 7, "global_every": 3}, [7, 7, None]),
    "all local": ("hybrid", {"window": 4, "global_every": 0}, [4, 4, 4]),
    "window of one": ("hybrid", {"window": 1, "global_every": 0}, [1, 1, 1]),
}


@pytest.mark.parametrize(("name", "options", "windows"), CASES.values(), ids=CASES)
def test_logits_equal_a_reference_by_position(small, tokens, name, options, windows, monkeypatch):
    monkeypatch.setattr(core, "SHORTEST_BLOCK", 5)  # several blocks, the last one shorter
    model = small(name, options=options)
    params = scrambled(model.init(0))
    batch = tokens(2, 16)
    logits_BTV = jax.jit(model.logits)(params, batch)
    for tokens_T, logits_TV in zip(batch, logits_BTV, strict=True):
        np.testing.assert_allclose(logits_TV, reference_logits(model, params, tokens_T, windows), atol=2e-5)


def test_gqa_with_a_key_head_each_is_mha(small, tokens):
    mha, gqa = small(), small("gqa", options={"kv_heads": 4})
    params = mha.init(0)
    assert np.array_equal(
        jax.jit(mha.logits)(params, tokens(2, 16)), jax.jit(gqa.logits)(params, tokens(2, 16))
    )


def test_hybrid_of_global_layers_alone_is_mha_bitwise(small, tokens):
    mha, hybrid = small(), small("hybrid", options={"window": 4, "global_every": 1})
    batch = tokens(2, 17)
    for model in (mha, hybrid):
        assert model.init(2).keys() == mha.specs.keys()
    one, other = (
        jax.jit(jax.grad(lambda p, m=m: m.loss(p, batch, 0.0)[0]))(m.init(2)) for m in (mha, hybrid)
    )
    assert all(np.array_equal(one[path], other[path]) for path in one)


@pytest.mark.parametrize(("length", "window"), [(16, 4), (24, 8), (12, 1)])
def test_chunks_equal_the_mask(length, window, monkeypatch):
    draw = np.random.default_rng(0)
    query, key, value = (draw.normal(size=(2, heads, length, 4)).astype(np.float32) for heads in (4, 2, 2))
    attend = jax.jit(lambda *qkv: core.attend(*qkv, window))
    assert core.in_chunks(length, window)
    chunked = attend(query, key, value)
    monkeypatch.setattr(core, "in_chunks", lambda *_: False)
    masked = jax.jit(lambda *qkv: core.attend(*qkv, window))(query, key, value)
    np.testing.assert_allclose(chunked, masked, atol=1e-6)


def test_blocks_cover_each_query_once():
    for length in (1, 63, 64, 100, 256, 300, 4096):
        positions = [t for start, stop in core.blocks(length) for t in range(start, stop)]
        assert positions == list(range(length))
