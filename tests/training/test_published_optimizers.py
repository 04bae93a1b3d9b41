"""Each optimizer of a paper against its formula in numpy, in float64, one matrix at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from harness.config.schema.run import ModuleConfig
from harness.core.errors import UserError
from harness.models import ParamSpec
from harness.models.initialisation.draw import Draw
from harness.models.step_clock import StepClock
from harness.training.optimizers import optimizer_parts as optimizer_parts  # registers them
from harness.training.optimizers.matrices import Matrix
from harness.training.optimizers.optimizer_registry import OPTIMIZERS, Optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.published.soap import SoapOptions, scale_by_soap

STEPS, RATE, DECAY = 7, 0.02, 0.1
SHAPES = {"embedding": (12, 6), "head": (12, 6), "gain": (6,), "wide": (2, 6, 10), "tall": (10, 2, 4)}
AXES = {
    "embedding": ("vocabulary", "width"),
    "head": ("vocabulary", "width"),
    "gain": ("width",),
    "wide": ("layers", "width", "ffn"),
    "tall": ("width", "heads", None),
}
MATRICES = {"wide": Matrix(6, 10, 1.0), "tall": Matrix(10, 8, 1.0)}
DECAYS = {path: path != "gain" for path in SHAPES}

Trees = list[dict[str, np.ndarray]]


def group_of(**changes: Any) -> ParameterGroup:
    specs = {path: ParamSpec(shape, AXES[path], Draw("normal", 0.5)) for path, shape in SHAPES.items()}
    ones = dict.fromkeys(SHAPES, 1.0)
    return ParameterGroup(specs, DECAYS, ones, MATRICES, **{"weight_decay": DECAY, **changes})


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def trained(name: str, options: dict[str, Any] | None = None, **changes: Any) -> tuple[Trees, Any, Optimizer]:
    """Parameters after each step from given gradients, the last state, and the optimizer of the last step."""
    configured = OPTIMIZERS.lookup(ModuleConfig(name, options or {}))
    params, grads = arrays(0), [arrays(1 + step) for step in range(STEPS)]

    def built(step: Any) -> Optimizer:
        clock = StepClock(step, step / STEPS, 0)
        return group_of(clock=clock, **changes).build(configured, jnp.float32(RATE))

    @jax.jit
    def update(step: Any, params: Any, state: Any, grads: Any) -> Any:
        updates, state = built(step).update(grads, state, params, value=1.0)
        return optax.apply_updates(params, updates), state

    state, found = built(0).init(params), []
    for step in range(STEPS):
        params, state = update(jnp.float32(step), params, state, grads[step])
        found.append(jax.device_get(params))
    return found, state, built(STEPS)


def slices(path: str, array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64).reshape(-1, MATRICES[path].rows, MATRICES[path].columns)


def followed(
    path: str, step_of: Callable[[], Callable[[np.ndarray, np.ndarray], np.ndarray]], decay: float = DECAY
) -> np.ndarray:
    """The last parameters of descent along the directions of `step_of()`, a function of (gradient, W) that
    keeps a state for each matrix (or for the whole array)."""
    start = arrays(0)[path].astype(np.float64)
    parts = slices(path, start) if path in MATRICES else start[None]
    results = []
    for index, w in enumerate(parts):
        direction = step_of()
        for step in range(STEPS):
            grad = arrays(1 + step)[path].astype(np.float64)
            own = slices(path, grad)[index] if path in MATRICES else grad
            w = w - RATE * (direction(own, w) + (decay * w if DECAYS[path] else 0))
        results.append(w)
    return np.stack(results).reshape(start.shape)


def adam(b1: float = 0.9, b2: float = 0.95, nesterov: bool = False) -> Callable[[], Callable]:
    def make() -> Callable:
        m, v, t = 0.0, 0.0, 0

        def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
            nonlocal m, v, t
            t += 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            mean = m / (1 - b1**t)
            if nesterov:
                mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            return mean / (np.sqrt(v / (1 - b2**t)) + 1e-8)

        return direction

    return make


def quintic(x: np.ndarray) -> np.ndarray:
    """Muon's iteration, of either orientation."""
    if x.shape[0] > x.shape[1]:
        return quintic(x.T).T
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def nesterov_momentum(then: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable:
    trace = 0.0

    def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
        nonlocal trace
        trace = 0.95 * trace + g
        return then(g + 0.95 * trace, w)

    return direction


def assert_others_are_adam(found: Trees, b1: float = 0.9, b2: float = 0.95) -> None:
    for path in ("embedding", "gain"):
        np.testing.assert_allclose(found[-1][path], followed(path, adam(b1, b2)), atol=2e-5)


def test_nadamw_is_dozats():
    found, *_ = trained("nadamw")
    for path in SHAPES:
        expected = followed(path, adam(nesterov=True))
        np.testing.assert_allclose(found[-1][path], expected, atol=2e-5, err_msg=path)


def test_ademamix_grows_its_slow_momentum_over_the_run():
    options = {"b1": 0.9, "b2": 0.99, "b3": 0.999, "alpha": 4.0, "warmup": 0.5}

    def make() -> Callable:
        m1, m2, v, t = 0.0, 0.0, 0.0, 0

        def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
            nonlocal m1, m2, v, t
            share, t = min(t / STEPS / 0.5, 1.0), t + 1
            half_life = (1 - share) * math.log(0.5) / math.log(0.9) + share * math.log(0.5) / math.log(0.999)
            b3 = 0.5 ** (1 / half_life)
            m1, m2, v = 0.9 * m1 + 0.1 * g, b3 * m2 + (1 - b3) * g, 0.99 * v + 0.01 * g * g
            return (m1 / (1 - 0.9**t) + share * 4.0 * m2) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)

        return direction

    found, *_ = trained("ademamix", options)
    for path in ("embedding", "wide", "gain"):
        np.testing.assert_allclose(found[-1][path], followed(path, make), atol=5e-5, err_msg=path)


def test_soap_is_adam_in_eigenbases():
    def make() -> Callable:
        m, v, t, left, right, q_left, q_right = (0.0, 0.0, 0, 0.0, 0.0, *2 * [np.zeros(0)])

        def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
            nonlocal m, v, t, left, right, q_left, q_right
            left, right = 0.95 * left + 0.05 * g @ g.T, 0.95 * right + 0.05 * g.T @ g
            if t == 0:
                t, q_left, q_right = 1, np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
                return np.zeros_like(g)
            m = 0.95 * m + 0.05 * g
            v = 0.95 * v + 0.05 * (q_left.T @ g @ q_right) ** 2
            mean, square = (q_left.T @ m @ q_right) / (1 - 0.95**t), v / (1 - 0.95**t)
            u = q_left @ (mean / (np.sqrt(square) + 1e-8)) @ q_right.T
            if t % 3 == 0:
                q_left, q_right = np.linalg.qr(left @ q_left)[0], np.linalg.qr(right @ q_right)[0]
            t += 1
            return u

        return direction

    assert_others_are_adam(trained("soap", {"every": 3})[0], 0.95, 0.95)
    # Square, since a basis of the null space of g' g is arbitrary.
    grads_TLII = np.random.default_rng(5).normal(size=(STEPS, 2, 6, 6)).astype(np.float32)
    soap = scale_by_soap(SoapOptions(every=3))
    state = soap.init({"w": jnp.zeros((2, 6, 6))})
    directions = [make(), make()]
    for grads_LII in grads_TLII:
        found, state = jax.jit(soap.update)({"w": grads_LII}, state)
        for index, direction in enumerate(directions):
            expected = direction(grads_LII[index].astype(np.float64), np.zeros(0))
            np.testing.assert_allclose(np.asarray(found["w"])[index], expected, atol=2e-3)


def test_shampoo_takes_roots_of_averaged_factors():
    def root(gram: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(gram)
        return vectors @ np.diag((np.maximum(values, 0) + 1e-2 * values.max()) ** -0.25) @ vectors.T

    def make() -> Callable:
        m, left, right, t, roots = 0.0, 0.0, 0.0, 0, [np.zeros(0), np.zeros(0)]

        def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
            nonlocal m, left, right, roots, t
            m = 0.9 * m + 0.1 * g
            left, right = 0.95 * left + 0.05 * g @ g.T, 0.95 * right + 0.05 * g.T @ g
            if t % 5 == 0:
                roots = [root(left), root(right)]
            t += 1
            u = roots[0] @ m @ roots[1]
            return 0.2 * u / np.sqrt(np.mean(u * u))

        return direction

    found, *_ = trained("shampoo", {"factor_epsilon": 1e-2})
    assert_others_are_adam(found)
    for path in MATRICES:
        np.testing.assert_allclose(found[-1][path], followed(path, make), atol=1e-4, err_msg=path)


def test_schedule_free_is_the_one_of_optax_where_everything_decays():
    found, state, last = trained("schedule_free", {"b1": 0.9, "b2": 0.95})
    reference = optax.contrib.schedule_free_adamw(RATE, None, 0.9, 0.95, 1e-8, DECAY)
    params: Any = arrays(0)
    own = reference.init(params)
    for step in range(STEPS):
        updates, own = reference.update(arrays(1 + step), own, params)
        params = optax.apply_updates(params, updates)
    assert last.judged
    judged = last.judged(found[-1], state)
    expected: Any = optax.contrib.schedule_free_eval_params(own, params)
    for path in SHAPES.keys() - {"gain"}:
        np.testing.assert_allclose(found[-1][path], params[path], atol=2e-5, err_msg=path)
        np.testing.assert_allclose(judged[path], expected[path], atol=2e-5, err_msg=path)
    assert np.abs(judged["wide"] - found[-1]["wide"]).max() > 1e-3


def test_muonh_stays_on_the_sphere_of_its_start():
    def make() -> Callable:
        radius: list[float] = []

        def step(m: np.ndarray, w: np.ndarray) -> np.ndarray:
            if not radius:
                radius.append(float(np.linalg.norm(w)))
            u = quintic(m)
            moved = w - RATE * radius[0] * u / np.linalg.norm(u)
            return (w - radius[0] * moved / np.linalg.norm(moved)) / RATE

        return nesterov_momentum(step)

    found, *_ = trained("muonh", {"others_rate": 1.0})
    assert_others_are_adam(found)
    for path in MATRICES:
        np.testing.assert_allclose(found[-1][path], followed(path, make, 0.0), atol=5e-4, err_msg=path)
        for one, start in zip(slices(path, found[-1][path]), slices(path, arrays(0)[path]), strict=True):
            assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(start), rel=1e-5)


def test_muonh_refuses_a_matrix_that_starts_at_zero():
    specs = {path: ParamSpec(shape, AXES[path], Draw()) for path, shape in SHAPES.items()}
    with pytest.raises(UserError, match=r"wide starts at zero\. Train it with another optimizer"):
        replace(group_of(), specs=specs).build(OPTIMIZERS.lookup(ModuleConfig("muonh")), 0.0)


def test_normuon_has_a_second_moment_for_each_output():
    def make() -> Callable:
        v: Any = 0.0

        def step(m: np.ndarray, w: np.ndarray) -> np.ndarray:
            nonlocal v
            o = quintic(m)
            v = 0.95 * v + 0.05 * np.mean(o * o, axis=0)
            u = o / (np.sqrt(v) + 1e-8)
            return 0.2 * u / np.sqrt(np.mean(u * u))

        return nesterov_momentum(step)

    found, *_ = trained("normuon")
    assert_others_are_adam(found)
    for path in MATRICES:
        np.testing.assert_allclose(found[-1][path], followed(path, make), atol=2e-3, err_msg=path)


@pytest.mark.parametrize("decay", [1.0, 0.0])
def test_scion_steps_in_a_norm_for_each_kind(decay):
    def averaged(then: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Callable]:
        def make() -> Callable:
            m: Any = 0.0

            def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
                nonlocal m
                m = 0.9 * m + 0.1 * g
                return then(m)

            return direction

        return make

    extremes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "wide": lambda m: 3 * math.sqrt(10 / 6) * quintic(m),
        "tall": lambda m: 3 * quintic(m),
        "embedding": lambda m: m / np.sqrt(np.mean(m * m, axis=1, keepdims=True)),
        "head": lambda m: 10 * np.sign(m) / 6,
        "gain": lambda m: m / np.sqrt(np.mean(m * m)),
    }
    found, *_ = trained("scion", weight_decay=decay)
    for path, extreme in extremes.items():
        expected = followed(path, averaged(extreme), decay)
        np.testing.assert_allclose(found[-1][path], expected, atol=2e-3, err_msg=path)


def test_cautious_drops_what_goes_against_the_gradient():
    def make() -> Callable:
        inner = adam()()

        def direction(g: np.ndarray, w: np.ndarray) -> np.ndarray:
            u = inner(g, w)
            follows = u * g > 0
            return u * follows * g.size / (follows.sum() + 1)

        return direction

    found, *_ = trained("cautious")
    for path in ("embedding", "gain", "wide"):  # the mask of layers in one array is counted over all
        start, grads = arrays(0)[path], [arrays(1 + step)[path] for step in range(STEPS)]
        w, direction = start.astype(np.float64), make()
        for grad in grads:
            w = w - RATE * (direction(grad.astype(np.float64), w) + (DECAY * w if DECAYS[path] else 0))
        np.testing.assert_allclose(found[-1][path], w, atol=5e-5, err_msg=path)


def test_an_average_of_the_weights_is_judged_and_changes_nothing_else():
    plain, *_ = trained("lion")
    found, state, last = trained("averaged", {"decay": 0.5, "inner": {"name": "lion"}})
    average = {path: array.astype(np.float64) for path, array in arrays(0).items()}
    for step, params in enumerate(found):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {path: decay * a + (1 - decay) * params[path] for path, a in average.items()}
    assert last.judged
    judged = last.judged(found[-1], state)
    for path in SHAPES:
        np.testing.assert_array_equal(found[-1][path], plain[-1][path])
        np.testing.assert_allclose(judged[path], average[path], atol=1e-5)
    with pytest.raises(UserError, match="schedule_free has weights of its own"):
        trained("averaged", {"inner": {"name": "schedule_free"}})
