"""Where an advantage goes with scale, and how far that may be drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.compare.stats.estimates import Direction
from harness.compare.stats.scale_trend import project, trend
from tests.compare.numbers import made


@pytest.mark.parametrize(
    ("gamma", "se", "direction"),
    [
        (-0.03, 0.002, Direction.SHRINKS),
        (0.03, 0.002, Direction.GROWS),
        (0.0, 0.002, Direction.HOLDS),
        (0.0, 0.05, Direction.UNRESOLVED),
    ],
)
def test_trend_directions(gamma, se, direction):
    x = np.array([0.0, 1.0, 2.0, 3.0])
    ms = [made(0.05 + gamma * v, se) for v in x]
    found = trend(x, ms)
    assert found.gamma == pytest.approx(gamma, abs=1e-12)
    assert found.direction is direction
    mirrored = trend(x, [made(-m.log_k, se) for m in ms], sign=-1.0)
    assert mirrored.direction is direction


def test_projection_is_one_decade_ahead_and_tagged():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    found = project(x, [made(0.10 - 0.03 * v, 0.001) for v in x])
    assert found.log_k == pytest.approx(0.10 - 0.03 * (3 + math.log(10)))
    assert found.flags == ("EXTRAPOLATION",)
    assert found.crossing_flops == pytest.approx(math.exp(10 / 3))
    assert project(x, [made(1.0 - 0.03 * v, 0.001) for v in x]).crossing_flops is None
    assert project(x[:2], [made(0.1, 0.1)] * 2) is None
