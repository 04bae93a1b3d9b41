"""The blocks of the package against slow plain versions, their stream, and their products."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.config.schema.run import ComputeConfig, ModuleConfig, Remat
from harness.core.errors import UserError
from harness.extend import (
    lookup,
    register_block,
    register_embedding,
    register_head,
    shift_time,
    weight,
    zeros,
)
from harness.models.blocks.pre_norm import PreNorm
from harness.models.text.stream_check import check_stream
from harness.models.text.text_model import TextModel

T = 12


@pytest.fixture
def rows():
    return jnp.asarray(np.random.default_rng(7).integers(0, 16, (2, T + 1), dtype=np.int32))


def with_nodes(model, **nodes):
    config = replace(model.spec.config, **nodes)
    return TextModel.assemble(replace(model.spec, config=config), model.compute)


def with_block(model, name, **options):
    return with_nodes(model, block=ModuleConfig(name, options))


def noisy_params(model):
    """Parameters that no block leaves at a start that hides what it does."""
    noise = np.random.default_rng(0)
    return {
        path: value + noise.normal(0, 0.3, value.shape).astype(np.float32)
        for path, value in model.init(0).items()
    }


def norm(x, gain):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * np.asarray(gain)


class Plain:
    """The mechanisms of a decoder as functions of one layer, and its parameters by path."""

    def __init__(self, model, rows):
        self.params = noisy_params(model)
        self.decoder = model.module({path: jnp.asarray(value) for path, value in self.params.items()})
        self.x0 = np.asarray(self.decoder.embed_rows(rows[:, :-1]))
        self.expected = np.asarray(jax.jit(model.logits)(self.params, rows[:, :-1]))
        rotary = self.decoder.rotary(T)
        self._branches = {
            "attention": jax.jit(lambda layer, x: layer.attention(x, rotary)),
            "feedforward": jax.jit(lambda layer, x: layer.feedforward(x)),
        }

    def branch(self, layer, part, x):
        return np.asarray(self._branches[part](self.decoder.layers[layer], jnp.asarray(x)))

    def __getitem__(self, path):
        return self.params[path]

    def close(self, x):
        """Compare the logits of what the final norm reads."""
        logits = norm(x, self["norm.gain"]) @ self["embedding"].T
        np.testing.assert_allclose(self.expected, logits, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["sandwich_norm", "peri_norm"])
def test_norms_on_both_sides(small, rows, name):
    plain = Plain(with_block(small(), name), rows)
    x = plain.x0 if name == "sandwich_norm" else norm(plain.x0, plain["stream.norm.gain"])
    for layer in range(3):
        for part in ("attention", "feedforward"):
            y = plain.branch(layer, part, norm(x, plain[f"layers.{layer}.{part}_norm.gain"]))
            x = x + norm(y, plain[f"layers.{layer}.{part}_output_norm.gain"])
    plain.close(x)


def test_parallel_branches(small, rows):
    plain = Plain(with_block(small(), "parallel"), rows)
    x = plain.x0
    for layer in range(3):
        read = norm(x, plain[f"layers.{layer}.norm.gain"])
        x = x + plain.branch(layer, "attention", read) + plain.branch(layer, "feedforward", read)
    plain.close(x)


def test_layer_scale(small, rows):
    model = with_block(small(), "layer_scale", initial=0.01)
    assert model.init(0)["layers.1.attention_scale"][0] == np.float32(0.01)
    plain = Plain(model, rows)
    x = plain.x0
    for layer in range(3):
        for part in ("attention", "feedforward"):
            y = plain.branch(layer, part, norm(x, plain[f"layers.{layer}.{part}_norm.gain"]))
            x = x + plain[f"layers.{layer}.{part}_scale"] * y
    plain.close(x)


@pytest.mark.parametrize("dynamic", [False, True])
def test_hyper_connections(small, rows, dynamic):
    n = 3
    plain = Plain(with_block(small(), "hyper_connections", lanes=n, dynamic=dynamic), rows)
    h = [plain.x0] * n
    for layer in range(3):
        for place, part in enumerate(("attention", "feedforward")):
            own = f"layers.{layer}.{part}_connection"
            a = [plain[f"{own}.read"][i] + ((2 * layer + place) % n == i) for i in range(n)]
            m = [[plain[f"{own}.mix"][i, j] + (i == j) for j in range(n)] for i in range(n)]
            b = [plain[f"{own}.write"][i] + 1 for i in range(n)]
            if dynamic:
                s, s_b = plain[f"{own}.scale"]
                d = [
                    np.tanh(norm(h[i], plain[f"{own}.input_norm.gain"]) @ plain[f"{own}.dynamic"])
                    for i in range(n)
                ]
                a = [a[i] + s * d[i][..., :1] for i in range(n)]
                b = [b[i] + s_b * d[i][..., 1:2] for i in range(n)]
                m = [[m[i][j] + s * d[i][..., 2 + j : 3 + j] for j in range(n)] for i in range(n)]
            read = sum(a[i] * h[i] for i in range(n))
            y = plain.branch(layer, part, norm(read, plain[f"{own}.norm.gain"]))
            h = [sum(m[i][j] * h[i] for i in range(n)) + b[j] * y for j in range(n)]
    plain.close(sum(h))


def test_hyper_connections_start_as_the_plain_decoder(small, rows):
    model, plain = with_block(small(), "hyper_connections"), small()
    losses = (jax.jit(each.token_losses)(each.init(0), rows) for each in (model, plain))
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("blocks", [None, 2, 4])
def test_attention_residuals(small, rows, blocks):
    plain = Plain(with_block(small(), "attention_residuals", blocks=blocks), rows)
    size = 1 if blocks is None else -(-6 // blocks)

    def read(sources, path):
        score = np.stack([norm(s, 1) @ plain[path] for s in sources])
        share = np.exp(score) / np.exp(score).sum(axis=0)
        return sum(share[j][..., None] * s for j, s in enumerate(sources))

    outputs, grouped = [], []
    for branch in range(6):
        layer, part = branch // 2, ("attention", "feedforward")[branch % 2]
        grouped = [sum(outputs[i : i + size]) for i in range(0, branch, size)]
        x = plain.x0 if branch == 0 else read([plain.x0, *grouped], f"layers.{layer}.{part}_reader.query")
        outputs.append(plain.branch(layer, part, norm(x, plain[f"layers.{layer}.{part}_norm.gain"])))
    grouped = [sum(outputs[i : i + size]) for i in range(0, 6, size)]
    plain.close(read([plain.x0, *grouped], "stream.reader.query"))


@pytest.mark.parametrize("name", ["hyper_connections", "attention_residuals"])
def test_every_parameter_learns_with_remat_as_without(small, rows, name):
    plain = with_block(small(layers=2), name)
    again = TextModel.assemble(plain.spec, ComputeConfig(remat=Remat.full))
    params = noisy_params(plain)
    one, other = (jax.jit(jax.grad(lambda p, m=m: m.loss(p, rows, 0.0)[0]))(params) for m in (plain, again))
    for path in params:
        assert np.any(one[path] != 0), path
        np.testing.assert_allclose(one[path], other[path], rtol=1e-3, atol=1e-6, err_msg=path)


class Pair(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return x_BTD, x_BTD

    def close(self, stream):
        return stream[0] + stream[1]


class Open(Pair):
    def close(self, stream):
        return stream


register_block("test_takes_one", stream=Pair)(type("TakesOne", (PreNorm,), {}))
register_block("test_never_closes", stream=Open)(type("NeverCloses", (nnx.Module,), {}))


def _register_call(name, call, **facts):
    fields = {"__init__": lambda self, context, options: None, "__call__": call}
    register_block(name, **facts)(type(name, (nnx.Module,), fields))


_register_call("test_gives_all", lambda self, stream, attend, feed: attend(stream), stream=Pair)
_register_call("test_open", lambda self, stream, attend, feed: stream, stream=Open)
_register_call("test_grows", lambda self, stream, attend, feed: (*stream, stream[0]), stream=Pair, scans=True)
_register_call("test_widens", lambda self, x, attend, feed: jnp.concatenate([x, feed(x)], axis=-1))

PAIR = r"\(float32\[4,16,8\], float32\[4,16,8\]\)"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("test_takes_one", f"layer 0 cannot be applied to the stream {PAIR} .*stream=..."),
        ("test_gives_all", rf"calls attend\(\) with {PAIR}, which takes one x float32\[4,16,8\]"),
        ("test_open", f"ends with {PAIR}, but the final norm reads"),
        ("test_grows", "test_grows scans, but layer 0 changes its stream from"),
        ("test_widens", r"calls feed\(\) with float32\[4,16,16\]"),
    ],
)
def test_a_stream_that_does_not_fit_is_one_sentence(small, block, message):
    spec = replace(small().spec, config=replace(small().spec.config, block=ModuleConfig(block)))
    with pytest.raises(UserError, match=message):
        check_stream(spec)


def test_products_of_hyper_connections_are_counted(small):
    plain = small()
    model = with_block(plain, "hyper_connections", lanes=4)
    own = 3 * 2 * 2.0 * 4 * 8 * (4 + 2)  # 3 layers of 2 branches, 4 lanes, each 8 x (a, b and a row of m)
    assert model.flops_per_token - plain.flops_per_token == pytest.approx(3 * own)
    assert model.executed_flops_per_token - plain.executed_flops_per_token == pytest.approx(3 * own)
    static = with_block(plain, "hyper_connections", dynamic=False)
    assert static.flops_per_token == plain.flops_per_token


@register_embedding("test_projected_bigram")
class ProjectedBigram(nnx.Module):
    def __init__(self, context, options):
        self.rows = weight((8, 4), ("vocabulary", None), fan_in=4)
        self.up = weight((4, context.shape.width), (None, "width"), fan_in=4)

    def __call__(self, x_BTD, tokens_BT, document_BT):
        pair_BT = (tokens_BT * 3 + shift_time(tokens_BT, 1, document_BT)) % 8
        return x_BTD + lookup(self.rows, pair_BT, x_BTD.dtype) @ self.up[...]


@register_head("test_two_heads")
class TwoHeads(nnx.Module):
    def __init__(self, context, options):
        self.more = zeros((context.shape.width, context.shape.width), ("width", None))

    def __call__(self, x_BTD, unembed):
        return unembed(x_BTD) + unembed(x_BTD @ self.more[...])


def test_products_of_embedding_and_head_are_counted(small):
    plain = small()
    bigram = with_nodes(plain, embedding=ModuleConfig("test_projected_bigram"))
    assert bigram.flops_per_token - plain.flops_per_token == pytest.approx(3 * 2.0 * 4 * 8)
    heads = with_nodes(plain, head=ModuleConfig("test_two_heads"))
    assert heads.flops_per_token - plain.flops_per_token == pytest.approx(3 * 2.0 * (8 * 8 + 8 * 16))


register_block("test_twice", order=lambda options, layers: (*range(layers),) * 2)(
    type("Twice", (PreNorm,), {})
)


def test_a_loop_caches_at_each_place(small):
    plain = small()
    twice = with_block(plain, "test_twice")
    assert twice.cache_bytes == 2 * plain.cache_bytes
    assert twice.parameters == plain.parameters
