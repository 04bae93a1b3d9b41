"""Questions of feed-forward layers against plain numpy: hidden values, routers, experts."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.run import ModuleConfig
from harness.models.mechanism import LayerContext, ModelDims, RouterStats
from harness.models.registry import FEEDFORWARD
from tests.questions.test_block_questions import n, sigmoid, with_values

B, T, D, F, E, V = 2, 12, 16, 24, 4, 32
CONTEXT = LayerContext(ModelDims(D, 3, 4, 4, F, V), 1, T, qk_norm=True, norm_epsilon=1e-6)
X = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
EXPERTS = {"experts": E, "top_k": 2}


def question(file, name=None, **options):
    """The module of a question, with noisy parameters."""
    importlib.import_module(f"experiments.questions.feedforward.{file}")
    configured = FEEDFORWARD.lookup(ModuleConfig(name or file, options))
    return with_values(configured.build(CONTEXT))


def value(param):
    return np.asarray(param[...], np.float64)


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def check(actual, expected, atol=3e-5):
    np.testing.assert_allclose(actual, expected, atol=atol)


def clipped(g, u):
    g = np.minimum(g, 7)
    return g * sigmoid(1.702 * g) * (np.clip(u, -7, 7) + 1)


def sparse(g, u):
    threshold = g.mean(-1, keepdims=True) + 1.645 * g.std(-1, keepdims=True)
    return gelu(np.maximum(g - threshold, 0)) * u


@pytest.mark.parametrize(
    ("file", "hidden"),
    [("geglu", lambda g, u: gelu(g) * u), ("clipped_swiglu", clipped), ("sparse_gate", sparse)],
)
def test_gated_layers(file, hidden):
    module, x = question(file), 4 * X
    expected = hidden(x @ value(module.gate), x @ value(module.up)) @ value(module.down)
    check(module(jnp.asarray(x)), expected, atol=3e-4)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_squared_relu(slope):
    module = question("squared_relu", slope=slope)
    z = X @ value(module.up)
    check(module(jnp.asarray(X)), np.where(z > 0, z, slope * z) ** 2 @ value(module.down))


def test_xielu():
    module = question("xielu")
    z, above, below = (
        X @ value(module.up),
        *(np.log1p(np.exp(value(p))) for p in (module.above, module.below)),
    )
    curve = np.where(z > 0, above * z**2, (0.5 + below) * (np.expm1(np.minimum(z, 0)) - z)) + z / 2
    check(module(jnp.asarray(X)), curve @ value(module.down))


def test_biases():
    module = question("feedforward_biases")
    gate, up, down = (value(p) for p in (module.gate_bias, module.up_bias, module.down_bias))
    hidden = silu(X @ value(module.gate) + gate) * (X @ value(module.up) + up)
    check(module(jnp.asarray(X)), hidden @ value(module.down) + down)


def expert(module, index, x):
    gate, up, down = (value(p)[index] for p in (module.gate, module.up, module.down))
    return (silu(x @ gate) * (x @ up)) @ down


def by_token(module, weights_of, x=X):
    """Sum over the experts of each token by `weights_of(b, t)`, a dict from expert to weight."""
    y = np.zeros(x.shape)
    for b, t in np.ndindex(x.shape[:2]):
        for index, weight in weights_of(b, t).items():
            y[b, t] += weight * expert(module, index, x[b, t])
    return y


def best(scores, bias: Any = 0.0, count=2):
    return np.argsort(-(scores + bias))[:count]


@pytest.mark.parametrize("whole", [False, True])
def test_softmax_router(whole):
    module = question("softmax_router", whole=whole, **EXPERTS)
    logits, bias = X @ value(module.router), value(module.bias)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    def weights(b, t):
        chosen = best(scores[b, t], bias)
        total = 1 if whole else scores[b, t, chosen].sum()
        return {e: scores[b, t, e] / total for e in chosen}

    check(module(jnp.asarray(X))[0], by_token(module, weights))


@pytest.mark.parametrize(
    ("file", "score", "total"),
    [
        ("scaled_weights", lambda m: sigmoid(X @ value(m.router)), 2.5),
        ("softplus_router", lambda m: np.sqrt(np.log1p(np.exp(X @ value(m.router)))), 1),
        ("mlp_router", lambda m: sigmoid(silu(X @ value(m.hidden)) @ value(m.router)), 1),
        ("frozen_router", lambda m: sigmoid(X @ np.random.default_rng(0).normal(0, 0.25, (D, E))), 1),
    ],
)
def test_scores(file, score, total):
    module = question(file, **EXPERTS)
    scores, bias = score(module), value(module.bias)

    def weights(b, t):
        chosen = best(scores[b, t], bias)
        return {e: total * scores[b, t, e] / scores[b, t, chosen].sum() for e in chosen}

    check(module(jnp.asarray(X))[0], by_token(module, weights))


def test_scaled_input():
    module = question("scaled_input", experts=E)
    scores, bias = sigmoid(X @ value(module.router)), value(module.bias)
    scale = np.array([[scores[b, t, best(scores[b, t], bias, 1)[0]] for t in range(T)] for b in range(B)])
    expected = by_token(module, lambda b, t: {best(scores[b, t], bias, 1)[0]: 1.0}, scale[..., None] * X)
    check(module(jnp.asarray(X))[0], expected)


@pytest.mark.parametrize("copy", [False, True])
def test_null_experts(copy):
    module = question("null_experts", nulls=3, copy=copy, **EXPERTS)
    scores, bias = sigmoid(X @ value(module.router)), value(module.bias)
    nothing, weights = np.zeros((B, T, 1)), {}
    for b, t in np.ndindex(B, T):
        chosen = best(scores[b, t], bias)
        shares = scores[b, t, chosen] / scores[b, t, chosen].sum()
        weights[b, t] = {e: share for e, share in zip(chosen, shares, strict=True) if e < E}
        nothing[b, t] = shares[chosen >= E].sum()
    assert 0 < nothing.sum() < B * T
    check(module(jnp.asarray(X))[0], by_token(module, lambda b, t: weights[b, t]) + copy * nothing * X)


def test_relu_routing():
    module = question("relu_routing", **EXPERTS)
    weights = np.maximum(X @ value(module.router), 0)
    y, statistics = module(jnp.asarray(X))
    check(y, by_token(module, lambda b, t: dict(enumerate(weights[b, t]))))
    assert float(statistics.auxiliary) == pytest.approx(
        float(value(module.rate)[0]) * weights.mean(), rel=1e-4
    )
    assert float(statistics.dropped) == pytest.approx((weights == 0).mean())
    configured = FEEDFORWARD.lookup(ModuleConfig("relu_routing", EXPERTS))
    for sparsity, factor in ((0.3, 1.2), (0.7, 1 / 1.2)):
        signals = RouterStats(jnp.ones(E), jnp.float32(sparsity), None)
        after = configured.update_after_step({"rate": jnp.array([2.0])}, signals)
        np.testing.assert_allclose(after["rate"], [2 * factor], rtol=1e-6)


def hashed(value):
    for factor in (0x45D9F3B, 0x119DE1F3):
        value = (value ^ (value >> 16)) * factor % 2**32
    return value ^ (value >> 16)


def test_hash_routing():
    module = question("hash_routing", balance="none", **EXPERTS)
    tokens = np.random.default_rng(2).integers(0, V, (B, T))
    hashes = [[hashed(token * E + index) for index in range(E)] for token in range(V)]
    table = np.argsort(-np.array(hashes), axis=1)[:, :2]
    assert np.ptp(np.bincount(table.ravel(), minlength=E)) < V / 2  # about even
    scores = sigmoid(X @ value(module.router))

    def weights(b, t):
        own = table[tokens[b, t]]
        return {e: scores[b, t, e] / scores[b, t, own].sum() for e in own}

    check(module(jnp.asarray(X), jnp.asarray(tokens))[0], by_token(module, weights))


def test_router_losses():
    module = question("router_z_loss", **EXPERTS)
    logits = X @ value(module.router)
    loss = 1e-3 * np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
    assert float(module(jnp.asarray(X))[1].auxiliary) == pytest.approx(loss, rel=1e-4)
    module = question("orthogonal_router", **EXPERTS)
    unit = value(module.router) / np.linalg.norm(value(module.router), axis=0)
    loss = 1e-2 * np.sum((unit.T @ unit - np.eye(E)) ** 2)
    assert float(module(jnp.asarray(X))[1].auxiliary) == pytest.approx(loss, rel=1e-4)


def test_dense_beside_experts():
    module = question("dense_beside_experts", **EXPERTS)

    def normed(norm, x):
        return n(x) * value(norm.gain)

    x = normed(module.expert_norm, X)
    scores, bias = sigmoid(x @ value(module.router)), value(module.bias)

    def weights(b, t):
        chosen = best(scores[b, t], bias)
        return {e: scores[b, t, e] / scores[b, t, chosen].sum() for e in chosen}

    dense, x_dense = module.dense, normed(module.dense_norm, X)
    y = (silu(x_dense @ value(dense.gate)) * (x_dense @ value(dense.up))) @ value(dense.down)
    expected = normed(module.dense_out_norm, y) + normed(module.expert_out_norm, by_token(module, weights, x))
    check(module(jnp.asarray(X))[0], expected, atol=3e-4)


def test_product_keys():
    module = question("product_keys", keys=6, heads=2, top=3, half=5)
    query, down, up = (
        n(np.einsum("btd,dhik->bthik", X, value(module.query))),
        value(module.down),
        value(module.up),
    )
    first, second = (value(keys) for keys in module.half_keys)
    expected = np.zeros((B, T, D))
    for b, t, h in np.ndindex(B, T, 2):
        scores = (query[b, t, h, 0] @ first)[:, None] + query[b, t, h, 1] @ second
        chosen = np.argsort(-scores.ravel())[:3]  # the best of all sums are sums of the best halves
        weight = np.exp(scores.ravel()[chosen])
        weight = weight / weight.sum()
        expected[b, t] += (weight * np.maximum(down[chosen] @ X[b, t], 0)) @ up[chosen]
    check(module(jnp.asarray(X)), expected)
