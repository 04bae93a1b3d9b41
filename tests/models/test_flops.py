"""The closed form equals a walk over the jaxpr, exactly; the model's FLOPs equal a sum over positions."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from harness.config.schema import ComputeConfig, Layers, Remat
from harness.models.attention import core
from harness.models.flops import count_jaxpr, forward_flops

MECHANISMS = {
    "mha": ("mha", {}),
    "gqa": ("gqa", {"kv_heads": 2}),
    "hybrid-chunks": ("hybrid", {"window": 4, "global_every": 2}),
    "hybrid-masked": ("hybrid", {"window": 12, "global_every": 2}),
    "all-local": ("hybrid", {"window": 8, "global_every": 0}),
}


@pytest.mark.parametrize(("layers", "remat"), list(itertools.product(Layers, Remat)))
@pytest.mark.parametrize(("name", "options"), MECHANISMS.values(), ids=MECHANISMS)
def test_executed_flops_equal_the_jaxpr(small, name, options, layers, remat, monkeypatch):
    monkeypatch.setattr(core, "SHORTEST_BLOCK", 5)
    B, T = 2, 32
    model = small(
        name, length=T, options=options, layers=3, compute=ComputeConfig(layers=layers, remat=remat)
    )
    params = {path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in model.stored.items()}
    tokens = jax.ShapeDtypeStruct((B, T + 1), jnp.int32)

    def loss(params, tokens):
        return model.loss(params, tokens, 1e-4)

    assert count_jaxpr(loss, params, tokens) == B * T * forward_flops(model.blueprint)
    trained = count_jaxpr(jax.value_and_grad(loss, has_aux=True), params, tokens)
    assert trained == B * T * model.executed_flops_per_token


@pytest.mark.parametrize(("name", "options"), MECHANISMS.values(), ids=MECHANISMS)
def test_model_flops_equal_a_sum_over_positions(small, name, options):
    T = 32
    model = small(name, length=T, options=options)
    products = sum(spec.size for path, spec in model.specs.items() if "gain" not in path)
    every = options.get("global_every", 1)
    windows = [T if every and (layer + 1) % every == 0 else options["window"] for layer in range(3)]
    seen = sum(min(t + 1, window) for window in windows for t in range(T)) / T
    per_key = 4 * model.shape.heads * model.shape.head_width
    assert model.flops_per_token == pytest.approx(6 * products + 3 * per_key * seen, rel=1e-12)


def test_the_walk_multiplies_by_the_length_of_a_scan_and_refuses_what_it_cannot_know():
    square = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    assert count_jaxpr(lambda a: a @ a, square) == 2 * 27
    looped = lambda a: jax.lax.scan(lambda c, _: (jax.jit(jnp.dot)(c, a), None), a, length=5)[0]  # noqa: E731
    assert count_jaxpr(looped, square) == 5 * 2 * 27
    with pytest.raises(ValueError, match="while"):
        count_jaxpr(lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ a, a), square)
