"""Trend, projection and k along a ladder whose control scatters about its curve, by simulation.

The control's mean is L = 1.9 + 1.3 x^-.16 at compute x, plus a scatter that both variants of a scale share.
`bends` says what it is: False, a luck of each scale that leaves the slope alone; True, a smooth wave over the
distance of two scales, which bends the curve on which k is measured. Seed noise as in `simulate`: SD .0011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.compare.stats.compute_multiplier import compute_multiplier, pooled_multiplier
from harness.compare.stats.control_slope import fit_ladder
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.paired_effects import effect_from_deltas
from harness.compare.stats.scale_trend import project, trend
from tests.compare.simulate import RHO, RUN_SD, Rate

DECADE = math.log(10)
LOG_K = 0.15
AHEAD = math.log(10)


def curve(x: np.ndarray) -> np.ndarray:
    """Loss of the control at ln compute x, without scatter."""
    return 1.9 + 1.3 * np.exp(-0.16 * x)


@dataclass(frozen=True)
class LadderCoverage:
    """Shares of intervals that hold the truth."""

    trend: Rate
    projection: Rate
    k: Rate

    def at_least(self, limit: float) -> bool:
        return min(self.trend.value, self.projection.value, self.k.value) >= limit

    def __str__(self) -> str:
        rates = f"trend {self.trend.value:.3f}, projection {self.projection.value:.3f}, k {self.k.value:.3f}"
        return f"{rates}, n = {self.trend.n}"


def ladder_coverage(
    reps: int,
    scales: int,
    scatter: float,
    *,
    bends: bool = False,
    gamma: float = 0.0,
    n: int = 3,
    rng: int = 0,
) -> LadderCoverage:
    """Coverage of trend, projection one decade ahead, and k of single scales; ln k is LOG_K + gamma x."""
    random = np.random.default_rng(rng)
    x = DECADE * (np.arange(scales) - (scales - 1) / 2)
    log_k, trends, projections, ks = LOG_K + gamma * x, 0, 0, 0
    for _ in range(reps):
        ladder = draw(random, x, log_k, scatter, bends)
        line, ahead = trend(x, ladder), project(x, ladder)
        trends += line is not None and line.low < gamma < line.high
        target = LOG_K + gamma * (x[-1] + AHEAD)
        projections += ahead is not None and ahead.log_low < target < ahead.log_high
        ks += sum(holds(k, truth) for k, truth in zip(ladder, log_k, strict=True))
    return LadderCoverage(Rate(trends, reps), Rate(projections, reps), Rate(ks, reps * scales))


def pooled_coverage(reps: int, scales: int, scatter: float, *, bends: bool = False, rng: int = 0) -> Rate:
    """Coverage of the pooled k."""
    random = np.random.default_rng(rng)
    x = DECADE * (np.arange(scales) - (scales - 1) / 2)
    hits = 0
    for _ in range(reps):
        pooled = pooled_multiplier(draw(random, x, np.full(scales, LOG_K), scatter, bends))
        hits += pooled is not None and holds(pooled, LOG_K)
    return Rate(hits, reps)


def draw(rng, x: np.ndarray, log_k: np.ndarray, scatter: float, bends: bool, n: int = 3) -> list[Multiplier]:
    """k_compute of each scale of one ladder."""
    around, there = waves(rng, x, x + log_k) if bends else [rng.normal(size=x.size)] * 2
    differences = curve(x + log_k) - curve(x) + scatter * (there - around)
    means = curve(x) + scatter * around + RUN_SD / math.sqrt(n) * rng.normal(size=x.size)
    fit = fit_ladder(np.exp(x), means, np.full(x.size, RUN_SD / math.sqrt(n)))
    assert fit is not None
    noise = RUN_SD * math.sqrt(2 * (1 - RHO)) * rng.normal(size=(x.size, n))
    deltas = differences[:, None] + noise
    return [compute_multiplier(effect_from_deltas(d), s) for d, s in zip(deltas, fit.slopes, strict=True)]


def waves(rng, *points: np.ndarray) -> list[np.ndarray]:
    """Draw a smooth function of SD 1, correlated exp(-(distance / DECADE)^2 / 2), at each group of points."""
    x = np.concatenate(points)
    values, vectors = np.linalg.eigh(np.exp(-0.5 * ((x[:, None] - x) / DECADE) ** 2))
    drawn = vectors @ (np.sqrt(values.clip(min=0)) * rng.normal(size=x.size))
    return np.split(drawn, np.cumsum([group.size for group in points])[:-1])


def holds(k: Multiplier, truth: float) -> bool:
    return k.log_low is not None and k.log_high is not None and k.log_low < truth < k.log_high
