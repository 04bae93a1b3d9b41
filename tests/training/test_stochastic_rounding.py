"""Rounding to bfloat16 at random: exact on average, repeatable, and the same on every mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P

from harness.config.schema.cluster import MeshConfig
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.optimizers.rounding.stochastic_rounding import (
    _random_words,
    noise_key,
    round_to_bfloat16,
)

ULP = 2.0**-7
"""Distance of bfloat16 values from 1 to 2."""
STEPS = 512

rounded = jax.jit(round_to_bfloat16, static_argnames="path")


def key(seed: int = 0, step: int = 0):
    return noise_key(jnp.uint32(seed), jnp.int32(step))


def bits(array) -> np.ndarray:
    return np.asarray(array).view(np.uint16)


def test_the_mean_of_many_roundings_is_the_value():
    """Within 4 standard errors of a coin between two neighbours."""
    rng = np.random.default_rng(0)
    x_N = (rng.normal(size=32) * 10.0 ** rng.integers(-20, 20, 32)).astype(np.float32)
    draws_KN = np.asarray(rounded(jnp.broadcast_to(x_N, (2**14, 32)), key(), "w"), np.float64)
    low_N, high_N = draws_KN.min(axis=0), draws_KN.max(axis=0)
    assert ((draws_KN == low_N) | (draws_KN == high_N)).all()
    assert ((low_N <= x_N) & (x_N <= high_N)).all()
    share_N = (x_N - low_N) / (high_N - low_N)
    error_N = np.abs((draws_KN.mean(axis=0) - x_N) / (high_N - low_N))
    assert (error_N <= 4 * np.sqrt(share_N * (1 - share_N) / len(draws_KN))).all()


def test_every_bfloat16_value_stays():
    every = np.arange(2**16, dtype=np.uint16).view(jnp.bfloat16)
    every = every[~np.isnan(every.astype(np.float32))]
    found = rounded(jnp.asarray(every.astype(np.float32)), key(), "w")
    normal = np.abs(every.astype(np.float32)) >= np.finfo(np.float32).tiny  # a CPU may flush the others to 0
    assert np.array_equal(bits(found)[normal], bits(every)[normal])
    assert np.isnan(np.float32(rounded(jnp.float32([jnp.nan]), key(), "w"))).all()


def test_small_updates_add_up():
    """A 64th of the distance to the next value, 512 times: to the nearest value each would be dropped."""

    @jax.jit
    def walk(weight_N, key_at):
        def step(weight_N, step):
            wide_N = weight_N.astype(jnp.float32) + ULP / 64
            return round_to_bfloat16(wide_N, noise_key(jnp.uint32(1), step), "w"), None

        return jax.lax.scan(step, weight_N, key_at)[0]

    end_N = np.asarray(walk(jnp.ones(4096, jnp.bfloat16), jnp.arange(STEPS)), np.float64)
    distance = STEPS * ULP / 64
    spread = np.sqrt(STEPS * (1 / 64) * (63 / 64)) * ULP
    assert abs(end_N.mean() - 1 - distance) < 4 * spread / 64
    assert end_N.std() == pytest.approx(spread, rel=0.1)
    assert jnp.bfloat16(1 + ULP / 64) == 1


def test_the_same_seed_step_and_path_round_alike_and_no_others():
    x = jnp.full((64, 64), 1 + ULP / 2)
    one = bits(rounded(x, key(3, 5), "a"))
    assert np.array_equal(one, bits(rounded(x, key(3, 5), "a")))
    for other in (rounded(x, key(4, 5), "a"), rounded(x, key(3, 6), "a"), rounded(x, key(3, 5), "b")):
        assert np.mean(one == bits(other)) == pytest.approx(0.5, abs=0.05)
    layers = bits(rounded(jnp.broadcast_to(x, (3, 64, 64)), key(3, 5), "a"))
    assert np.mean(layers[0] == layers[1]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((16, 24), P("fsdp", "tensor")),
        ((4, 16, 24), P(None, "fsdp", "tensor")),
        ((2, 4, 16, 24), P(None, "data")),
    ],
)
def test_every_mesh_rounds_alike(shape, split):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    alone = rounded(jnp.asarray(x), key(), "w")
    with jax.set_mesh(lane_mesh(jax.devices(), MeshConfig(2, 2, 2))):
        found = rounded(jax.device_put(x, split), key(), "w")
        assert found.sharding.is_equivalent_to(jax.NamedSharding(jax.sharding.get_mesh(), split), x.ndim)
    assert np.array_equal(bits(found), bits(alone))


def test_the_bits_are_even_and_independent():
    """Of neighbours along either axis, and of one value from step to step: within 4.5 standard errors."""
    words_SIO = np.stack([np.asarray(_random_words(jnp.ones((64, 64)), key(9, s), "w")) for s in range(16)])
    bits_SIOB = (words_SIO[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    signs = 2.0 * bits_SIOB - 1
    limit = 4.5 / np.sqrt(words_SIO.size)
    assert np.abs(signs.mean(axis=(0, 1, 2))).max() < limit
    for axis in range(3):
        products = np.take(signs, range(1, signs.shape[axis]), axis) * np.take(
            signs, range(signs.shape[axis] - 1), axis
        )
        assert np.abs(products.mean(axis=(0, 1, 2))).max() < 1.1 * limit
