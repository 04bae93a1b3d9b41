"""Questions of attention and positions against loops over queries and keys in plain numpy.

Where a question changes what follows the heads, queries, keys and values are taken from the module: their own
tests are elsewhere.
"""

import importlib
import math

import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.run import ModuleConfig
from harness.models.attention.grouped_query import SoftmaxAttention
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.registry import ATTENTION
from harness.models.sockets.entries import POSITIONS
from tests.questions.test_block_questions import n, sigmoid, with_values

B, T, D, H, K = 2, 12, 16, 4, 4
CONTEXT = LayerContext(ModelDims(D, 3, H, K, 24, 32), 1, T, qk_norm=True, norm_epsilon=1e-6)
X = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
DOCUMENTS = np.array([[0] * 5 + [1] * 7, [0] * 12])
ROTARY = Rotary.table(T, K, 1e4).with_documents(jnp.asarray(DOCUMENTS))


def question(file, name=None, socket="attention", **options):
    """The module of a question, with noisy parameters."""
    importlib.import_module(f"experiments.questions.{socket}.{file}")
    configured = ATTENTION.lookup(ModuleConfig(name or file, options))
    return with_values(configured.build(CONTEXT))


def value(param):
    return np.asarray(param[...], np.float64)


def loops(module, score=lambda b, h, t, s, z: z, sees=lambda b, h, t, s: True, heads=None):
    """Mixed values [B, H, T, K] of a softmax over the keys that are seen."""
    query, key, values = (np.asarray(x, np.float64) for x in heads or module.heads(jnp.asarray(X), ROTARY))
    mixed = np.zeros((*query.shape[:3], values.shape[-1]))
    for b, h, t in np.ndindex(query.shape[:3]):
        seen = [s for s in range(t + 1) if DOCUMENTS[b, s] == DOCUMENTS[b, t] and sees(b, h, t, s)]
        z = np.array(
            [score(b, h, t, s, query[b, h, t] @ key[b, h, s] / math.sqrt(query.shape[-1])) for s in seen]
        )
        weight = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        mixed[b, h, t] = weight @ values[b, h, seen]
    return mixed


def output(module, mixed):
    return np.einsum("bhtk,hkd->btd", mixed, value(module.output))


def check(module, expected, atol=2e-5):
    np.testing.assert_allclose(module(jnp.asarray(X), ROTARY), expected, atol=atol)


def test_alibi():
    module = question("alibi", socket="position")
    check(
        module, output(module, loops(module, lambda b, h, t, s, z: z - 2.0 ** (-8 * (h + 1) / H) * (t - s)))
    )


def test_distance_buckets():
    module = question("distance_buckets", socket="position", buckets=8, longest=10)
    bias = value(module.bias)

    def bucket(distance):
        far = 4 + int(math.log(max(distance, 1) / 4) / math.log(10 / 4) * 4)
        return distance if distance < 4 else min(far, 7)

    check(module, output(module, loops(module, lambda b, h, t, s, z: z + bias[bucket(t - s), h])))


def test_forgetting():
    module = question("forgetting", socket="position")
    gate = np.log(sigmoid(X @ value(module.forget) + value(module.forget_bias)))
    check(module, output(module, loops(module, lambda b, h, t, s, z: z + gate[b, s + 1 : t + 1, h].sum())))


def test_temperatures():
    plain = question("scalable_softmax", socket="position")
    query = plain.heads(jnp.asarray(X), ROTARY)[0]
    rate = value(plain.rate)[:, None, None] * np.log(np.arange(T) + 1)[:, None]
    base = SoftmaxAttention.heads(plain, jnp.asarray(X), ROTARY)
    np.testing.assert_allclose(query, base[0] * rate, atol=1e-5)
    module = question("attention_temperature", socket="position", every=5)
    query = module.heads(jnp.asarray(X), ROTARY)[0]
    base = SoftmaxAttention.heads(module, jnp.asarray(X), ROTARY)
    factor = 1 + 0.1 * np.log(1 + (np.arange(T) + 1) // 5)
    np.testing.assert_allclose(query, base[0] * factor[:, None], atol=1e-5)


def test_partial_key_offset():
    module = question("partial_key_offset", socket="position", share=0.5)
    moved, still = (
        module.heads(jnp.asarray(X), ROTARY)[1],
        SoftmaxAttention.heads(module, jnp.asarray(X), ROTARY)[1],
    )
    for b, t in np.ndindex(B, T):
        same = t > 0 and DOCUMENTS[b, t] == DOCUMENTS[b, t - 1]
        np.testing.assert_array_equal(moved[b, :, t, 0::2], still[b, :, t, 0::2])
        np.testing.assert_array_equal(moved[b, :, t, 1::2], still[b, :, t - 1, 1::2] if same else 0)


def test_frequencies():
    for file in ("partial_rope", "two_bases", "yarn_steps"):
        importlib.import_module(f"experiments.questions.position.{file}")
    wide = LayerContext(ModelDims(D, 4, 1, 16, 24, 32), 1, T, True, 1e-6)

    def of(name, *told, **options):
        position = POSITIONS.lookup(ModuleConfig(name, options))
        return position.entry.implementation(wide, position.options, *told)

    np.testing.assert_allclose(of("partial_rope", share=0.25, base=100.0), [1, 0.1] + [0] * 6, atol=1e-6)
    np.testing.assert_allclose(of("two_bases"), 1e6 ** (-np.arange(8) / 8), rtol=1e-5)
    np.testing.assert_allclose(of("two_bases", cycle=3), 1e4 ** (-np.arange(8) / 8), rtol=1e-5)
    plain = 1e4 ** (-np.arange(8) / 8)
    for progress, widened in ((0.4, False), (0.5, True)):
        frequency, scale = of("yarn_steps", jnp.float32(progress), windows=(16, 64, 64))
        turns = np.clip((16 * plain / (2 * np.pi) - 1) / 31, 0, 1)
        expected = plain * (0.25 + turns * 0.75) if widened else plain
        np.testing.assert_allclose(frequency, expected, rtol=1e-5)
        assert float(scale) == pytest.approx(1 + 0.2 * math.log(4) if widened else 1)


def test_head_gate():
    module = question("head_gate")
    gate = 2 * sigmoid(X[..., :12] @ value(module.gate))
    check(module, output(module, loops(module) * gate.swapaxes(1, 2)[..., None]))


@pytest.mark.parametrize("learned", [False, True])
def test_exclusive(learned):
    module = question("exclusive", learned=learned)
    own = np.asarray(module.heads(jnp.asarray(X), ROTARY)[2], np.float64)
    mixed = loops(module)
    along = (mixed * own).sum(-1, keepdims=True) / (own**2).sum(-1, keepdims=True) * own
    share = np.tanh(value(module.share))[:, None, None] if learned else 1
    check(module, output(module, mixed - share * along), atol=5e-5)


def test_differential():
    module = question("differential")

    def heads(param):
        return jnp.einsum("btd,dhk->bhtk", X, param[...])

    both = [
        loops(module, heads=(ROTARY(heads(query)), ROTARY(heads(key)), heads(module.value)))
        for query, key in zip(module.queries, module.keys, strict=True)
    ]
    a, b, c, d = value(module.vectors)
    base = 0.8 - 0.6 * math.exp(-0.3)
    share = math.exp(a @ b) - math.exp(c @ d) + base
    mixed = n(both[0] - share * both[1]) * value(module.norm.gain) * (1 - base)
    check(module, output(module, mixed), atol=2e-4)


def test_dynamic_heads():
    module = question("dynamic_heads")
    query, key, values = (np.asarray(x, np.float64) for x in module.heads(jnp.asarray(X), ROTARY))
    weights = loops(module, heads=(query, key, np.broadcast_to(np.eye(T), (B, H, T, T))))
    read, write = n(X @ value(module.read)), X @ value(module.write)
    shared = np.einsum("bth,bhts->bts", read, weights)
    mixed = np.einsum("bhts,bhsk->bhtk", weights + np.einsum("bth,bts->bhts", write, shared), values)
    check(module, output(module, mixed))


def test_paired_heads_are_heads_of_twice_the_length():
    module = question("paired_heads")

    def interleaved(param, norm=None):
        heads = np.einsum("btd,dpik->bptik", X, value(param))
        heads = heads if norm is None else n(heads) * value(norm.gain)
        if norm is not None:
            turned = [np.asarray(ROTARY(jnp.asarray(heads[:, :, :, i], jnp.float32))) for i in range(2)]
            heads = np.stack(turned, axis=3)
        return heads.reshape(B, H // 2, 2 * T, K)

    query, key = interleaved(module.query, module.query_norm), interleaved(module.key, module.key_norm)
    values, mixed = interleaved(module.value), np.zeros((B, H // 2, 2 * T, K))
    for b, p, t in np.ndindex(B, H // 2, 2 * T):
        seen = [s for s in range(t + 1) if DOCUMENTS[b, s // 2] == DOCUMENTS[b, t // 2]]
        weight = np.exp(key[b, p, seen] @ query[b, p, t] / 2)
        mixed[b, p, t] = weight / weight.sum() @ values[b, p, seen]
    by_token = mixed.reshape(B, H // 2, T, 2, K)
    check(module, np.einsum("bptik,pikd->btd", by_token, value(module.output)))


def test_chunks():
    module = question("chunks", chunk=5)
    check(module, output(module, loops(module, sees=lambda b, h, t, s: s // 5 == t // 5)))


def test_tensor_product():
    module = question("tensor_product", query_rank=3)
    heads = module.project_heads(jnp.asarray(X), ROTARY)
    for head, name, rank in zip(heads, ("query", "key", "value"), (3, 2, 2), strict=True):
        a, b = (np.einsum("btd,dij->btij", X, value(getattr(module, name + end))) for end in ("", "_factor"))
        expected = sum(a[..., r, None] * b[:, :, None, r] for r in range(rank)) / rank
        np.testing.assert_allclose(head, expected, atol=1e-5)


def blocks_of(b, t, size):
    """Blocks that lie before the token's own and whole in its document."""
    return [j for j in range(t // size) if DOCUMENTS[b, j * size] == DOCUMENTS[b, t]]


def test_block_attention():
    module = question("block_attention", block=3, top=2)
    query, key, _ = (np.asarray(x, np.float64) for x in module.heads(jnp.asarray(X), ROTARY))

    def sees(b, h, t, s):
        mass = {j: query[b, h, t] @ key[b, h, 3 * j : 3 * j + 3].mean(0) for j in blocks_of(b, t, 3)}
        return s // 3 in [t // 3, *sorted(mass, key=lambda j: -mass[j])[:1]]

    check(module, output(module, loops(module, sees=sees)))


def test_native_sparse():
    module = question("native_sparse", block=3, top=2, window=4)
    query, key, values = (np.asarray(x, np.float64) for x in module.heads(jnp.asarray(X), ROTARY))
    coarse, mass = np.zeros((B, H, T, K)), np.zeros((B, T, 4))
    for b, h, t in np.ndindex(B, H, T):
        if whole := blocks_of(b, t, 3):
            means = [x[b, h].reshape(-1, 3, K).mean(1)[whole] for x in (key, values)]
            weight = np.exp(means[0] @ query[b, h, t] / 2)
            coarse[b, h, t] = weight / weight.sum() @ means[1]
            mass[b, t, whole] += weight / weight.sum()
    mass[:, :, 0] += 1e6

    def sees(b, h, t, s):
        best = sorted(blocks_of(b, t, 3), key=lambda j: -mass[b, t, j])[:2]
        return s // 3 in [t // 3, *best]

    branches = (coarse, loops(module, sees=sees), loops(module, sees=lambda b, h, t, s: t - s < 4))
    gate = sigmoid(np.einsum("btd,dhi->bhti", X, value(module.gate)))
    check(module, output(module, sum(gate[..., i, None] * branch for i, branch in enumerate(branches))))


def test_kimi_delta():
    module = question("kimi_delta")

    def convolved(param, convolution):
        x, taps = np.einsum("btd,dhk->bthk", X, value(param)), value(convolution.taps)
        y = x.copy()
        for b, t, j in np.ndindex(B, T, 4):
            if t >= j and DOCUMENTS[b, t - j] == DOCUMENTS[b, t]:
                y[b, t] += taps[j] * x[b, t - j]
        return y * sigmoid(y)

    matrices = (module.query, module.key, module.value)
    query, key, values = map(convolved, matrices, module.convolutions)
    query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    gates = np.einsum("btr,rhk->bthk", X @ value(module.decay_down), value(module.decay_up))
    gates = -5 * sigmoid(np.exp(value(module.rate))[:, None] * (gates + value(module.decay_bias)))
    share, mixed = sigmoid(X @ value(module.beta)), np.zeros((B, T, H, K))
    for b, h in np.ndindex(B, H):
        state = np.zeros((K, K))
        for t in range(T):
            if t and DOCUMENTS[b, t] != DOCUMENTS[b, t - 1]:
                state = np.zeros((K, K))
            k, beta = key[b, t, h], share[b, t, h]
            state = (np.eye(K) - beta * np.outer(k, k)) @ np.diag(np.exp(gates[b, t, h])) @ state
            state = state + beta * np.outer(k, values[b, t, h])
            mixed[b, t, h] = state.T @ query[b, t, h]
    gate = sigmoid(np.einsum("btr,rhk->bthk", X @ value(module.gate_down), value(module.gate_up)))
    answer = n(mixed) * value(module.norm.gain) * gate
    check(module, np.einsum("bthk,hkd->btd", answer, value(module.output)), atol=1e-3)


def test_compressed_keys():
    module = question("compressed_keys", size=4, stride=2, window=3, top=2)
    query, key, values = (np.asarray(x, np.float64) for x in module.heads(jnp.asarray(X), ROTARY))
    logits, place = np.einsum("btd,dhk->bhtk", X, value(module.gate)), value(module.place)
    mixed = np.zeros((B, H, T, K))
    for b, h, t in np.ndindex(B, H, T):
        pools = []
        for end in range(3, t + 1, 2):
            if DOCUMENTS[b, end - 3] == DOCUMENTS[b, t]:
                weight = np.exp(np.stack([logits[b, h, end - j] + place[j, h] for j in range(4)]))
                weight = weight / weight.sum(0)
                pools.append([sum(weight[j] * x[b, h, end - j] for j in range(4)) for x in (key, values)])
        pools = sorted(pools, key=lambda pool: -pool[0] @ query[b, h, t])[:2]
        near = [s for s in range(max(0, t - 2), t + 1) if DOCUMENTS[b, s] == DOCUMENTS[b, t]]
        keys = np.array([*key[b, h, near], *(pool[0] for pool in pools)])
        weight = np.exp(keys @ query[b, h, t] / 2)
        mixed[b, h, t] = weight / weight.sum() @ np.array([*values[b, h, near], *(pool[1] for pool in pools)])
    check(module, output(module, mixed))


def test_value_residual_and_shared_keys_read_what_was_given():
    module = question("value_residual")
    first = np.random.default_rng(4).normal(size=(B, T, H, K)).astype(np.float32)
    query, key, own = module.heads(jnp.asarray(X), ROTARY)
    mixed = loops(module, heads=(query, key, (np.asarray(own) + first.swapaxes(1, 2)) / 2))
    actual = module(jnp.asarray(X), ROTARY, jnp.asarray(first))
    np.testing.assert_allclose(actual, output(module, mixed), atol=2e-5)
    y, side = module(jnp.asarray(X), ROTARY)
    np.testing.assert_allclose(y, output(module, loops(module)), atol=2e-5)
    np.testing.assert_array_equal(side.gives["first_BTGK"], own.swapaxes(1, 2))


def test_a_window_grows_with_progress():
    module = question("window_warmup", windows=(2, 5, 12))
    for progress, window in ((0.0, 2), (0.49, 2), (0.5, 5), (0.99, 5), (1.0, 12)):
        expected = output(module, loops(module, sees=lambda b, h, t, s, window=window: t - s < window))
        actual = module(jnp.asarray(X), ROTARY, jnp.float32(progress))
        np.testing.assert_allclose(actual, expected, atol=2e-5)
