"""The chunked form of the gated delta rule equals its recurrence, where it is easy and where it is hard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.models.attention.gated_delta import delta_rule, unit_lower_inverse


def recurrence(query, key, value, decay, share):
    """Answers [T, K] of one head, token by token, in float64."""
    state, answers = np.zeros((key.shape[1], value.shape[1])), []
    for t in range(len(key)):
        state = np.exp(decay[t]) * state
        state = state + np.outer(key[t], share[t] * (value[t] - state.T @ key[t]))
        answers.append(state.T @ query[t])
    return np.array(answers)


def drawn(T, alike, decay):
    """Unit keys that are the more `alike` the nearer that is to 1; decay and share as their logs' spread."""
    draw = np.random.default_rng(0)
    query, key, value = draw.normal(size=(3, T, 8))
    key = alike * key[:1] + (1 - alike) * key
    key, query = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (key, query))
    return query, key, value, -decay * draw.exponential(size=T), draw.uniform(0.5, 1, T)


@pytest.mark.parametrize(
    ("alike", "decay", "tolerance"),
    [(0.0, 0.1, 2e-6), (0.0, 0.0, 2e-6), (0.99, 0.01, 2e-5), (0.0, 5.0, 5e-6)],
    ids=["usual", "nothing fades", "keys alike", "all fades at once"],
)
def test_chunks_equal_the_recurrence(alike, decay, tolerance):
    """Also where powers of L reach 1e17, and where exp of the summed decay is 0 in float32."""
    given = drawn(96, alike, decay)
    expected = recurrence(*given)
    on_axes = [jnp.asarray(each, jnp.float32)[None, None] for each in given]
    for chunk in (1, 4, 64):
        answer = jax.jit(delta_rule, static_argnums=5)(*on_axes, chunk)[0, 0]
        np.testing.assert_allclose(answer, expected, atol=tolerance, err_msg=f"chunk {chunk}")


def test_gradients_are_finite_where_all_fades_and_equal_across_chunks():
    on_axes = [jnp.asarray(each, jnp.float32)[None, None] for each in drawn(32, 0.0, 10.0)]

    def gradient(chunk):
        return jax.jit(
            jax.grad(lambda *given: (delta_rule(*given, chunk=chunk) ** 2).sum(), argnums=range(5))
        )(*on_axes)

    for one, other in zip(gradient(2), gradient(16), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_inverse_of_a_unit_lower_triangle():
    lower = np.tril(np.random.default_rng(1).uniform(-1, 1, (3, 16, 16)), -1)
    inverse = unit_lower_inverse(jnp.asarray(lower, jnp.float32))
    np.testing.assert_allclose(inverse, np.linalg.inv(np.eye(16) + lower), rtol=1e-4, atol=1e-4)
