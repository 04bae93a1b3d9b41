"""The loss surface: its truth recovered, its gradient, and the published points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.compare.stats import scaling_law
from tests.compare import validation
from tests.compare.synthetic import surface as truth


def test_surface_recovers_the_truth():
    n, d = np.repeat([1e7, 1e8, 1e9, 1e10], 5), np.tile(np.geomspace(1e9, 1e12, 5), 4)
    noise = np.exp(3e-3 * np.random.default_rng(4).normal(size=n.size))
    found = scaling_law.fit_scaling_law(n, d, truth(n, d) * noise)
    assert found.converged
    assert (found.E, found.alpha, found.beta) == pytest.approx((1.82, 0.348, 0.366), rel=0.05)
    assert found.loss(1e8, 2e9) == pytest.approx(truth(1e8, 2e9), rel=5e-3)


def test_surface_gradient_is_the_slope():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 20))
    theta = np.array([0.1, -0.2, 0.3, 0.4, 0.2])
    _, gradient = scaling_law.huber_objective(theta, *data)
    for axis in range(5):
        step = np.zeros(5)
        step[axis] = 1e-6
        rise = (
            scaling_law.huber_objective(theta + step, *data)[0]
            - scaling_law.huber_objective(theta - step, *data)[0]
        )
        assert gradient[axis] == pytest.approx(rise / 2e-6, rel=1e-4)


def test_surface_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="15 or more"):
        scaling_law.fit_scaling_law([1e8] * 5, [1e9] * 5, [3.0] * 5)
    with pytest.raises(ValueError, match="positive"):
        scaling_law.fit_scaling_law([1e8] * 20, [1e9] * 20, [math.nan] * 20)


def test_chinchilla_points():
    found = scaling_law.fit_scaling_law(*validation.chinchilla())
    assert found.converged
    assert found.points == 240
    assert found.objective <= 0.00101828
    assert 1.8170 <= found.E <= 1.8174
    assert 0.3470 <= found.alpha <= 0.3476
    assert 0.3668 <= found.beta <= 0.3675


def test_a_default_optimizer_is_caught():
    """L-BFGS-B, which everybody uses, is in the full run: its LAPACK calls are slow on a busy machine."""
    found = scaling_law.fit_scaling_law(
        *validation.chinchilla(), minimize=validation.default_optimizer("BFGS")
    )
    assert not found.converged
    assert found.reason
