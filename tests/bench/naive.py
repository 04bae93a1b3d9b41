"""What one writes first: batched einsums, scanned layers, default flags.

`python -m tests.bench.naive SHAPE` makes a first step, and then one for each line of its input. Without input
it is a cold start: it imports, compiles, makes one step and leaves.
"""

import sys

import jax
import jax.numpy as jnp
import optax

from tests.bench.contender import answer_steps
from tests.bench.task import SHAPES

SHAPE = SHAPES[sys.argv[1]]
WIDTH, LAYERS, HEADS, FFN = SHAPE.width, SHAPE.layers, SHAPE.heads, SHAPE.ffn
K = WIDTH // HEADS


def init(key):
    def normal(*shape):
        nonlocal key
        key, use = jax.random.split(key)
        return jax.random.normal(use, shape) / shape[-2] ** 0.5

    layers = {
        "qkv": normal(LAYERS, 3, HEADS, WIDTH, K),
        "out": normal(LAYERS, HEADS, K, WIDTH),
        "gate": normal(LAYERS, WIDTH, FFN),
        "up": normal(LAYERS, WIDTH, FFN),
        "down": normal(LAYERS, FFN, WIDTH),
        "norms": jnp.ones((LAYERS, 2, WIDTH)),
    }
    return {"embedding": normal(SHAPE.vocabulary, WIDTH), "norm": jnp.ones(WIDTH), "layers": layers}


def rms(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def rotate(x):
    angle = jnp.arange(x.shape[1])[:, None] / 10_000 ** (jnp.arange(K // 2) / (K // 2))
    sin, cos = jnp.sin(angle)[:, None], jnp.cos(angle)[:, None]
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def layer(x, p):
    h = rms(x, p["norms"][0])
    q, k, v = jnp.einsum("btd,chdk->cbthk", h, p["qkv"])
    scores = jnp.einsum("bthk,bshk->bhts", rotate(q), rotate(k)) / K**0.5
    mask = jnp.tril(jnp.ones((SHAPE.length, SHAPE.length), bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), -1)
    x = x + jnp.einsum("bhts,bshk,hkd->btd", weights, v, p["out"])
    h = rms(x, p["norms"][1])
    gated = jax.nn.silu(jnp.einsum("btd,df->btf", h, p["gate"])) * jnp.einsum("btd,df->btf", h, p["up"])
    return x + jnp.einsum("btf,fd->btd", gated, p["down"]), None


def loss(p, rows):
    x, _ = jax.lax.scan(layer, p["embedding"][rows[:, :-1]], p["layers"])
    logits = jnp.einsum("btd,vd->btv", rms(x, p["norm"]), p["embedding"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:]).mean()


def main() -> None:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    @jax.jit
    def step(params, state, rows):
        value, grads = jax.value_and_grad(loss)(params, rows)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params = init(jax.random.key(0))
    state, rows = optimizer.init(params), jnp.asarray(SHAPE.tokens())

    def train() -> None:
        nonlocal params, state
        params, state, value = step(params, state, rows)
        value.block_until_ready()

    answer_steps(train)


if __name__ == "__main__":
    main()
