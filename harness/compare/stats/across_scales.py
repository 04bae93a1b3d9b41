"""Multiplier over the scales of a ladder, each of which has one seed: the scale is the unit of replication.

Such a ladder says nothing about seeds. But a treatment that needs less at nearly every scale is no accident
of the scales, and that is a statement of its own, with its own estimand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.compare.stats.distributions import t_critical

MIN_SCALES = 4
"""Smallest number of scales that count as a sample."""
ESTIMAND = "the scales of this ladder as a sample of scales"


@dataclass(frozen=True)
class AcrossScales:
    """Mean ln k over scales with its t interval, and the count of scales with k > 1. It never says which
    variant is better over seeds."""

    k: float
    low: float
    high: float
    log_k: float
    log_se: float
    log_low: float
    log_high: float
    df: float
    scales: int
    positive: int
    """Number of scales with k > 1."""
    sign_p: float
    """Exact two-sided p of the sign test: k > 1 and k < 1 equally likely at a scale."""
    estimand: str = ESTIMAND


def across_scales(log_k: Sequence[float], *, level: float = 0.95) -> AcrossScales | None:
    """Return the mean of one ln k per scale with a t interval on S - 1 df (Student 1908), and the sign test
    (Arbuthnott 1710), which leaves out scales with k = 1. None below MIN_SCALES, or if a number is not
    finite."""
    values = np.asarray(log_k, float)
    if values.size < MIN_SCALES or not np.isfinite(values).all():
        return None
    mean, se = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    df = values.size - 1.0
    half = t_critical(df, level) * se
    positive, negative = int((values > 0).sum()), int((values < 0).sum())
    low, high = mean - half, mean + half
    k, k_low, k_high = (math.exp(value) for value in (mean, low, high))
    sign_p = sign_test(positive, negative)
    return AcrossScales(k, k_low, k_high, mean, se, low, high, df, values.size, positive, sign_p)


def sign_test(positive: int, negative: int) -> float:
    """Return the exact two-sided p of so many signs: twice P(X >= the larger) for X binomial at 1/2."""
    n, larger = positive + negative, max(positive, negative)
    if not n:
        return 1.0
    return min(1.0, 2 * float(special.bdtrc(larger - 1, n, 0.5)))
