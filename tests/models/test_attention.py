"""Each mechanism against a slow reference that was written without it, and against the control when off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.models.attention.kernels import softmax
from tests.models import reference
from tests.models.mechanisms import LOCAL


def scrambled(params):
    """Gains other than one and sinks other than zero, so that what is left out shows."""
    noise = np.random.default_rng(5)
    return {
        path: array + noise.normal(0, 0.1, array.shape).astype(np.float32) for path, array in params.items()
    }


def still(x_K, position):
    return x_K


FULL, FOUR = reference.softmax(), reference.softmax(4)
CASES = {
    "mha": ("mha", {}, [FULL] * 2),
    "gqa": ("gqa", {"kv_heads": 2}, [FULL]),
    "window in chunks": ("window", {"window": 4}, [FOUR]),
    "window masked": ("window", {"window": 7}, [reference.softmax(7)]),
    "window of one": ("window", {"window": 1, "kv_heads": 1}, [reference.softmax(1)]),
    "pattern": ("pattern", {"cycle": [LOCAL, {"name": "mha"}]}, [FOUR, FULL, FOUR]),
    "nope among rotary": (
        "pattern",
        {"cycle": [{"name": "mha"}, {"name": "nope", "options": {"kv_heads": 2}}]},
        [FULL, reference.softmax(turn=still)],
    ),
    "gated": ("gated", {"kv_heads": 2}, [FULL]),
    "softcap": ("mha", {"softcap": 0.7}, [reference.softmax(softcap=0.7)]),
    "sinks": ("gqa", {"kv_heads": 2, "sinks": True}, [FULL]),
    "capped chunks with sinks": (
        "window",
        {"window": 4, "kv_heads": 2, "softcap": 0.7, "sinks": True},
        [reference.softmax(4, softcap=0.7)],
    ),
    "mla": ("mla", {"latent": 6, "rotary": 4}, [reference.latent]),
    "mla turning as wide as it is still": ("mla", {"latent": 8, "rotary": 8}, [reference.latent]),
    "gated_delta": ("gated_delta", {"chunk": 4}, [reference.gated_delta]),
    "gated_delta padded": ("gated_delta", {"chunk": 16}, [reference.gated_delta]),
}


@pytest.mark.parametrize(("name", "options", "layers"), CASES.values(), ids=CASES)
def test_logits_equal_a_reference_by_position(small, tokens, name, options, layers, monkeypatch):
    """Within float32; the norm after the delta rule divides small answers by their size, and errors too."""
    monkeypatch.setattr(softmax, "SHORTEST_BLOCK", 5)  # several blocks, the last one shorter
    model = small(name, options=options, length=18, layers=len(layers), head_width=8)
    params = scrambled(model.init(0))
    batch = tokens(2, 18 if options.get("chunk") == 16 else 16)
    logits_BTV = jax.jit(model.logits)(params, batch)
    for tokens_T, logits_TV in zip(batch, logits_BTV, strict=True):
        expected_TV = reference.logits(params, tokens_T, layers)
        np.testing.assert_allclose(logits_TV, expected_TV, atol=1e-4 if name == "gated_delta" else 2e-5)


OFF = {
    "a key head each": ("gqa", {"kv_heads": 4}),
    "no cap, no sinks": ("mha", {"softcap": None, "sinks": False}),
    "a cycle of the control": ("pattern", {"cycle": [{"name": "mha"}]}),
    "a window as long as the context": ("window", {"window": 16}),
}


@pytest.mark.parametrize(("name", "options"), OFF.values(), ids=OFF)
def test_switched_off_it_is_the_control_bitwise(small, tokens, name, options):
    """Loss and every gradient, from the same start."""
    mha, other = small(layers=1), small(name, options=options, layers=1)
    batch = tokens(2, 17)
    assert other.param_specs == mha.param_specs
    (one, gradient), (same, its) = (
        jax.jit(jax.value_and_grad(lambda p, m=m: m.loss(p, batch, 0.0)[0]))(m.init(2)) for m in (mha, other)
    )
    assert float(one) == float(same)
    assert all(np.array_equal(gradient[path], its[path]) for path in gradient)


def test_without_its_gate_gated_attention_is_the_control_bitwise(small, tokens, monkeypatch):
    mha, gated = small(layers=1), small("gated", layers=1)
    params, batch = gated.init(2), tokens(2, 16)
    shared = {path: array for path, array in params.items() if path in mha.param_specs}
    assert params.keys() - shared.keys() == {"layers.0.attention.gate"}
    control = jax.jit(mha.logits)(shared, batch)
    assert not np.array_equal(jax.jit(lambda *given: gated.logits(*given))(params, batch), control)
    monkeypatch.setattr(jax.nn, "sigmoid", jnp.ones_like)
    assert np.array_equal(jax.jit(gated.logits)(params, batch), control)


@pytest.mark.parametrize(("length", "window"), [(16, 4), (24, 8), (12, 1)])
def test_chunks_equal_the_mask(length, window, monkeypatch):
    query, key, value = drawn(length)
    sink = jnp.array([0.5, -1, 0, 2])
    attend = jax.jit(lambda q, k, v: softmax.attend(q, k, v, window, 3.0, sink))
    assert softmax.uses_chunks(length, window)
    chunked = attend(query, key, value)
    monkeypatch.setattr(softmax, "uses_chunks", lambda *_: False)
    masked = jax.jit(lambda q, k, v: softmax.attend(q, k, v, window, 3.0, sink))(query, key, value)
    np.testing.assert_allclose(chunked, masked, atol=1e-6)


def drawn(length, value_width=4):
    """Queries of four heads, keys and values of two."""
    draw = np.random.default_rng(0)
    shapes = ((4, 4), (2, 4), (2, value_width))
    return (draw.normal(size=(2, heads, length, width)).astype(np.float32) for heads, width in shapes)


def test_blocks_cover_each_query_once():
    for length in (1, 63, 64, 100, 256, 300, 4096):
        positions = [t for start, stop in softmax.query_blocks(length) for t in range(start, stop)]
        assert positions == list(range(length))
