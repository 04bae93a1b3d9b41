"""Band for the difference of one pair from its own steps. It holds for these trajectories, not other seeds.

Most of a pair's difference is a run effect that lasts longer than any window of steps. On real logs a test
based on such a band rejects a true null over nine times in ten, so the band has no p and is labelled.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Effect, Estimand


def trajectory_band(deltas: ArrayLike, *, lags: int | None = None, level: float = 0.95) -> Effect:
    """Return the mean of a pair's per-step differences with a Newey-West band, `trajectory_only`, p None.

    deltas: shape (steps,), consecutive, finite. Var = [g_0 + 2 sum_l (1 - l / (lags + 1)) g_l] / n with
    autocovariances g_l (Newey and West 1987, Bartlett); lags default to 4 (n / 100)^(2/9). No band below
    three steps or if a delta is not finite.
    """
    d = np.asarray(deltas, float).reshape(-1)
    if d.size < 3 or not np.isfinite(d).all():
        mean = float(d.mean()) if d.size and np.isfinite(d).all() else None
        return Effect(mean, None, None, None, 1, None, "Newey-West", (), Estimand.trajectory_only)
    lags = min(int(4 * (d.size / 100) ** (2 / 9)) if lags is None else lags, d.size - 1)
    se = math.sqrt(max(long_run_variance(d, lags), 0.0) / d.size)
    half = t_critical(math.inf, level) * se
    mean, method, scope = float(d.mean()), f"Newey-West, {lags} lags", Estimand.trajectory_only
    return Effect(mean, mean - half, mean + half, None, 1, None, method, (), scope, se=se, level=level)


def long_run_variance(values: np.ndarray, lags: int) -> float:
    """Return g_0 + 2 sum_{l=1..lags} (1 - l / (lags + 1)) g_l, with autocovariances g_l of `values`, (n,)."""
    e = values - values.mean()
    total = float(e @ e)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(e[lag:] @ e[:-lag])
    return total / e.size
