"""Questions of the residual stream against plain numpy, with simple functions for the mechanisms."""

import functools
import importlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import Configured
from harness.models.mechanism import LayerContext, ModelDims
from harness.models.parameters import init_param, param_specs
from harness.models.sockets.entries import BLOCKS
from harness.models.sockets.side_inputs import SideOutputs, asked_names
from harness.training.optimizers.optimizer_registry import OPTIMIZERS
from harness.training.optimizers.parameter_group import ParameterGroup

B, T, D, L = 2, 8, 16, 4
DRAW = np.random.default_rng(3)
X0 = DRAW.normal(size=(B, T, D)).astype(np.float32)
A, F = (DRAW.normal(0, D**-0.5, (D, D)).astype(np.float32) for _ in range(2))


def attend(x):
    return jnp.tanh(x) @ A


def feed(x):
    return jnp.sin(x) @ F


def n(x, axes: Any = -1):
    return x / np.sqrt(np.mean(np.square(x), axis=axes, keepdims=True) + 1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def with_values(module):
    """The module with noisy initial values."""
    specs, state = param_specs(module), nnx.to_flat_state(nnx.state(module))
    noise = np.random.default_rng(5)
    flat = [
        (p, v.replace(jnp.asarray(init_param(0, ".".join(map(str, p)), v.get_metadata()["spec"])
                                  + noise.normal(0, 0.2, v.shape).astype(np.float32))))
        for p, v in state
    ]  # fmt: skip
    assert len(flat) == len(specs)
    return nnx.merge(nnx.graphdef(module), nnx.from_flat_state(flat))


class Stack:
    """Blocks of a question, and what they make of X0."""

    def __init__(self, question, name=None, module=None, layers=L, **options):
        importlib.import_module(f"experiments.questions.block.{module or question}")
        self.block: Configured[Any] = BLOCKS.lookup(ModuleConfig(name or question, options))
        shape, entry = ModelDims(D, layers, 2, 8, 24, 16), self.block.entry
        contexts = [LayerContext(shape, layer, T, True, 1e-6) for layer in range(layers + 1)]
        self.layers = [with_values(entry.implementation(c, self.block.options)) for c in contexts[:-1]]
        self.ends = with_values(entry.stream(contexts[-1], self.block.options)) if entry.stream else None
        self.order = entry.order(self.block.options, layers) if entry.order else range(layers)

    def __call__(self, **side_inputs):
        stream, visits, auxiliary = self._end("open", jnp.asarray(X0)), {}, []
        for layer in self.order:
            block, given = self.layers[layer], {"x0_BTD": X0, "key": None, "step": None, **side_inputs}
            given["visit"] = visits.get(layer, 0)
            visits[layer] = given["visit"] + 1
            requests = asked_names(type(block).__call__, 4)
            stream = block(stream, attend, feed, **{name: given[name] for name in requests})
            if isinstance(stream, tuple) and isinstance(stream[-1], SideOutputs):
                auxiliary.append(stream[1].auxiliary)
                stream = stream[0]
        self.auxiliary = auxiliary
        return np.asarray(self._end("close", stream))

    def _end(self, end, stream):
        return getattr(self.ends, end)(stream) if self.ends else stream

    def value(self, layer, path):
        return np.asarray(functools.reduce(getattr, path.split("."), self.layers[layer])[...])

    def normed(self, layer, part, x):
        return n(x) * self.value(layer, f"{part}_norm.gain")

    def plain(self, layer, x):
        x = x + np.asarray(attend(self.normed(layer, "attention", x)))
        return x + np.asarray(feed(self.normed(layer, "feedforward", x)))


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


def test_places_of_the_norm():
    after, post = Stack("output_norm"), Stack("post_norm")
    x = y = X0
    for layer in range(L):
        x = x + after.normed(layer, "attention", attend(x))
        x = x + after.normed(layer, "feedforward", feed(x))
        y = post.normed(layer, "attention", y + attend(y))
        y = post.normed(layer, "feedforward", y + feed(y))
    close(after(), x)
    close(post(), y)


def test_late_parallel():
    stack, x = Stack("late_parallel"), X0
    for layer in range(L):
        if layer < 2:  # 7/11 of 4 layers
            x = stack.plain(layer, x)
        else:
            read = stack.normed(layer, "attention", x)
            x = x + attend(read) + feed(read)
    close(stack(), x)


def test_two_lanes():
    stack, x = Stack("two_lanes"), X0
    for layer in range(2):
        x = stack.plain(layer, x)
    a = b = x
    for layer in range(2, L):
        for part in ("attention", "feedforward"):
            y = (
                attend(stack.normed(layer, part, a))
                if part == "attention"
                else feed(stack.normed(layer, part, b))
            )
            r, w1, w2 = stack.value(layer, f"{part}_scales")
            a, b = r * a + w1 * y, r * b + w2 * y
    close(stack(), (a + b) / 2)


@pytest.mark.parametrize("name", ["manifold_hyper_connections", "permuted_hyper_connections"])
def test_mixing_on_the_manifold(name):
    stack, h = Stack(name), np.stack([X0] * 4, axis=2)
    for layer, part in itertools.product(range(L), ("attention", "feedforward")):
        own = f"{part}_connection"
        z = n(h, (-2, -1))
        c = np.einsum("btnd,ndc->btc", z, stack.value(layer, f"{own}.maps"))
        scales, bias = stack.value(layer, f"{own}.scale"), stack.value(layer, f"{own}.bias")
        c = np.repeat(scales, [4, 4, c.shape[-1] - 8]) * c + bias
        m: Any
        a, b, m = sigmoid(c[..., :4]), 2 * sigmoid(c[..., 4:8]), np.exp(c[..., 8:])
        if name.startswith("manifold"):
            m = m.reshape(B, T, 4, 4)
            m = m / m.sum(-1, keepdims=True)
            for _ in range(20):
                m = m / m.sum(-2, keepdims=True)
                m = m / m.sum(-1, keepdims=True)
        else:
            orders = itertools.permutations(range(4))
            m = sum(
                share[..., None, None] * np.eye(4)[list(order)]
                for share, order in zip(np.moveaxis(m / m.sum(-1, keepdims=True), -1, 0), orders, strict=True)
            )
        assert np.allclose(m.sum(-1), 1)
        assert np.allclose(m.sum(-2), 1, atol=1e-3)
        read = n(np.einsum("btn,btnd->btd", a, h)) * stack.value(layer, f"{own}.norm.gain")
        y = np.asarray((attend if part == "attention" else feed)(read))
        h = np.einsum("btij,btid->btjd", m, h) + b[..., None] * y[:, :, None]
    close(stack(), h.sum(2))


def test_scalars_on_the_stream():
    stack, x = Stack("x0_scalars"), X0
    for layer in range(L):
        a, b = stack.value(layer, "stream_scalar"), stack.value(layer, "embedding_scalar")
        x = stack.plain(layer, a * x + b * X0)
    close(stack(), x)
    stack, x = Stack("branch_scalars"), X0
    for layer in range(L):
        a, c = stack.value(layer, "stream_scalars"), stack.value(layer, "branch_scalars")
        x = a[0] * x + c[0] * attend(stack.normed(layer, "attention", x))
        x = a[1] * x + c[1] * feed(stack.normed(layer, "feedforward", x))
    close(stack(), x)


def test_long_skips():
    stack = Stack("u_net_skips")
    first = stack.plain(0, X0)
    second = stack.plain(1, first)
    x = stack.plain(2, second + stack.value(2, "skip_scalar") * second)
    close(stack(), stack.plain(3, x + stack.value(3, "skip_scalar") * first))
    stack = Stack("gated_skip")  # from layer 3 * 4 // 11 to 6 * 4 // 11
    early = x = stack.plain(1, stack.plain(0, X0))
    gate = 2 * sigmoid(x[..., :12] @ stack.value(2, "gate"))
    x = x + sigmoid(stack.value(2, "skip_level")) * gate * early
    close(stack(), stack.plain(3, stack.plain(2, x)))
    stack = Stack("backout")
    early = stack.plain(2, stack.plain(1, stack.plain(0, X0)))
    assert stack.ends is not None
    close(stack(), stack.plain(3, early) - np.asarray(stack.ends.backout_scalar[...]) * early)


def test_cached_attention_input():
    stack = Stack("cached_attention_input", layers=5)
    x = X0
    for layer in range(3):
        x = stack.plain(layer, x)
    cached = x
    for layer in (3, 4):
        x = x + attend(stack.normed(layer, "attention", cached))
        x = x + feed(stack.normed(layer, "feedforward", x))
    close(stack(), x)


def test_gains_by_depth():
    gains, inputs, layers = Stack("depth_gain"), Stack("feedforward_input_by_depth"), Stack("layer_gain")
    x = y = z = X0
    for layer in range(L):
        x = x + attend(gains.normed(layer, "attention", x) / np.sqrt(layer + 1))
        x = x + feed(gains.normed(layer, "feedforward", x) / np.sqrt(layer + 1))
        y = y + attend(inputs.normed(layer, "attention", y))
        y = y + feed(inputs.normed(layer, "feedforward", y) * (1 - 0.3 * layer / (L - 1)))
        z = layers.value(layer, "layer_scalar") * layers.plain(layer, z)
    close(gains(), x)
    close(inputs(), y)
    close(layers(), z)


def test_laurel():
    stack, x = Stack("laurel", rank=3), X0
    for layer in range(L):
        h = stack.normed(layer, "attention", x)
        low = h @ stack.value(layer, "down") @ stack.value(layer, "up")
        x = x + stack.normed(layer, "attention_output", attend(h)) + h + stack.normed(layer, "laurel", low)
        x = x / np.sqrt(2)
        x = x + feed(stack.normed(layer, "feedforward", x))
    close(stack(), x)


def test_alternating_updates():
    stack = Stack("alt_up")
    rms = lambda x: np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True))  # noqa: E731
    assert stack.ends is not None
    extras = [X0 @ np.asarray(matrix[...]) for matrix in stack.ends.into]
    h = [X0, *(extra * rms(X0) / rms(extra) for extra in extras)]
    for layer in range(L):

        def route(x, layer=layer):
            return np.tanh(stack.normed(layer, "router", x) / D @ stack.value(layer, "router"))

        c = (route(h[0]) @ stack.value(layer, "predict")).reshape(B, T, 4, 4)
        p = np.stack(h, 2) + np.einsum("btij,btjd->btid", c, np.stack(h, 2))
        y = stack.plain(layer, p[:, :, 0])
        share = 1 + route(y) @ stack.value(layer, "correct")
        h = [p[:, :, i] + share[..., i, None] * (y - p[:, :, 0]) for i in range(4)]
    ends = [extra @ np.asarray(matrix[...]) for extra, matrix in zip(h[1:], stack.ends.out_of, strict=True)]
    close(stack(), (h[0] + sum(end * rms(h[0]) / rms(end) for end in ends)) / 4)


def test_dense_former():
    stack, x, outputs = Stack("dense_former"), X0, [X0]
    for layer in range(L):
        outputs.append(stack.plain(layer, x))
        a = stack.value(layer, "depth_weights") + (np.arange(layer + 2) == layer + 1)
        x = sum(weight * output for weight, output in zip(a, outputs, strict=True))
    close(stack(), x)


def test_loops():
    stack, x = Stack("looped_stack"), X0
    for turn, layer in itertools.product(range(2), range(L)):
        start = x + stack.value(0, "input_scalar") * X0 if turn and layer == 0 else x
        x = stack.plain(layer, start)
    close(stack(), x)
    assert Stack("looped_stack", passes=3, outer=1).order == (0, 1, 2, 1, 2, 1, 2, 3)


def test_random_depth_is_right_on_average_and_judged_whole():
    drop, dropout = Stack("layer_drop", layers=1, last=0.5), Stack("branch_dropout", layers=1, rate=0.25)
    whole = drop.plain(0, X0)
    close(drop(), whole)
    close(dropout(), dropout.plain(0, X0))
    outputs = np.stack([drop(key=jax.random.key(seed)) for seed in range(40)])
    is_dropped = np.isclose(outputs, X0, atol=1e-5).all(axis=(2, 3))
    assert 0.3 < is_dropped.mean() < 0.7
    close(outputs[~is_dropped], np.broadcast_to(X0 + 2 * (whole - X0), outputs.shape)[~is_dropped])
    changes = dropout(key=jax.random.key(0)) - X0
    assert np.isfinite(changes).all()
    assert not np.allclose(changes, dropout(key=jax.random.key(1)) - X0)


def test_mixture_of_depths():
    stack = Stack("mixture_of_depths", layers=2, share=0.25)
    x = stack.plain(0, X0)
    y = stack.plain(1, x)
    w, guess = (x @ stack.value(1, name) for name in ("router", "predictor"))
    chosen = np.argsort(np.argsort(-w[..., 0])) < 2
    close(stack(step=3), x + chosen[..., None] * w * (y - x))
    loss = -np.where(chosen, np.log(sigmoid(guess[..., 0])), np.log(sigmoid(-guess[..., 0]))).mean()
    close(stack.auxiliary[0], loss)
    close(stack(), x + (guess > 0) * w * (y - x))


def test_the_unit_sphere():
    unit = lambda x, axis=-1: x / np.linalg.norm(x, axis=axis, keepdims=True)  # noqa: E731
    stack, x = Stack("unit_sphere"), unit(X0)
    for layer in range(L):
        x = unit(x + np.abs(stack.value(layer, "attention_step")) * (unit(attend(x)) - x))
        read = stack.value(layer, "feedforward_scale") * x
        x = unit(x + np.abs(stack.value(layer, "feedforward_step")) * (unit(feed(read)) - x))
    close(stack(), x)


def test_weights_come_back_to_the_sphere():
    importlib.import_module("experiments.questions.block.unit_sphere")
    from harness.extend import gain, weight

    module = nnx.List(
        [
            weight((D, 6), ("width", "ffn"), fan_in=D),
            weight((6, D), ("ffn", "width"), fan_in=6),
            gain(D, "width"),
        ]
    )
    specs = param_specs(module)
    params = {path: jnp.asarray(init_param(0, path, spec)) for path, spec in specs.items()}
    group = ParameterGroup(specs, dict.fromkeys(specs, False), dict.fromkeys(specs, 1.0))
    optimizer = group.build(OPTIMIZERS.lookup(ModuleConfig("adam_on_the_sphere")), 0.1)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    after: Any = optax.apply_updates(params, updates)
    close(np.linalg.norm(after["0"], axis=0), 1)
    close(np.linalg.norm(after["1"], axis=1), 1)
    close(after["2"], params["2"] - 0.1)
