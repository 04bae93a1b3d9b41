"""The timing rows of the second acceptance table by simulation: visits of a pass on a machine that drifts.

A visit has a log step time with noise of its own. Quads follow each other in time, A B B A, so a disturbance
of the machine is a series over visits: a drift, an AR(1) of .8, a change of clock by 8 % at a random visit.
Heavy tails are those of t with three df, scaled to the same SD.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.estimates import SlopeAxis
from harness.compare.stats.speed_up import (
    MIN_QUADS,
    TimingRatio,
    effective_speed_up,
    next_quads,
    timing_ratio,
)
from tests.compare.simulate import RHO, RUN_SD, Rate

SLOPE = 0.3
RATIO = math.log(1.07)
"""True ln of t_B / t_A."""
LOG_K = math.log(1.05)
Disturbance = Callable[[np.random.Generator, int], np.ndarray]
"""Draw of the log step time of so many visits in a row, whichever variant they time."""


def white(sd: float) -> Disturbance:
    return lambda rng, visits: sd * rng.normal(size=visits)


def heavy(sd: float) -> Disturbance:
    return lambda rng, visits: sd / math.sqrt(3) * rng.standard_t(3, size=visits)


def autoregressive(sd: float, a: float = 0.8) -> Disturbance:
    """AR(1) of stationary SD `sd`, begun in its stationary state."""

    def draw(rng, visits: int) -> np.ndarray:
        values = sd * rng.normal(size=visits)
        for index in range(1, visits):
            values[index] = a * values[index - 1] + math.sqrt(1 - a * a) * values[index]
        return values

    return draw


def drifting(sd: float, a_quad: float = 0.05) -> Disturbance:
    """White noise on a machine that gets slower by `a_quad` a quad."""
    return lambda rng, visits: sd * rng.normal(size=visits) + a_quad / 4 * np.arange(visits)


def clock_change(sd: float, step: float = 0.08) -> Disturbance:
    """White noise, and a clock that is 8 % slower from a random visit on."""

    def draw(rng, visits: int) -> np.ndarray:
        return sd * rng.normal(size=visits) + step * (np.arange(visits) >= rng.integers(1, visits))

    return draw


def visits(rng, disturbance: Disturbance, quads: int) -> np.ndarray:
    """Statistics of the visits, [quad, visit]."""
    return disturbance(rng, 4 * quads).reshape(quads, 4) + RATIO * np.array([0, 1, 1, 0])


def ratio_coverage(reps: int, disturbance: Disturbance, quads: int, rng: int = 0) -> Rate:
    """Share of intervals of a fixed number of quads that hold the true ratio."""
    random = np.random.default_rng(rng)
    return Rate(sum(_holds(timing_ratio(visits(random, disturbance, quads))) for _ in range(reps)), reps)


def grown(rng, disturbance: Disturbance) -> TimingRatio:
    """Ratio of a pass that grows until its interval is narrow."""
    timed = visits(rng, disturbance, MIN_QUADS)
    while more := next_quads(timing_ratio(timed)):
        timed = np.concatenate([timed, visits(rng, disturbance, more)])
    return timing_ratio(timed)


def grown_coverage(reps: int, disturbance: Disturbance, rng: int = 0) -> tuple[Rate, float]:
    """Coverage of such a pass, and its mean number of quads."""
    random = np.random.default_rng(rng)
    ratios = [grown(random, disturbance) for _ in range(reps)]
    return Rate(sum(map(_holds, ratios)), reps), float(np.mean([ratio.quads for ratio in ratios]))


def speed_up_coverage(reps: int, n: int, quads: int, sd: float, rng: int = 0) -> Rate:
    """Share of intervals of ln s, from n pairs and so many quads, that hold the true one."""
    random, hits, truth = np.random.default_rng(rng), 0, LOG_K - RATIO
    pair_sd = RUN_SD * math.sqrt(2 * (1 - RHO)) / SLOPE
    for _ in range(reps):
        draws = LOG_K + pair_sd * random.normal(size=n)
        se = float(draws.std(ddof=1)) / math.sqrt(n)
        k = multiplier_with_interval(SlopeAxis.k_tokens, float(draws.mean()), se, n - 1.0, n, ())
        s = effective_speed_up(k, timing_ratio(visits(random, white(sd), quads)))
        assert s.log_low is not None
        assert s.log_high is not None
        hits += s.log_low < truth < s.log_high
    return Rate(hits, reps)


def bursts(rng, steps: int, share: float, factor: float) -> np.ndarray:
    """Step times of a visit, shape (steps,), of which a neighbour slows down a share by a factor."""
    seconds = np.exp(0.01 * rng.normal(size=steps))
    return np.where(rng.random(steps) < share, factor * seconds, seconds)


def _holds(ratio: TimingRatio) -> bool:
    return ratio.low < RATIO < ratio.high
