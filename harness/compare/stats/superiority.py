"""Probability that a run of B ends below a run of A: the common-language effect size over seeds.

McGraw and Wong (1992), "A common language effect size statistic". For normal losses it is
Phi(-delta / sigma), where the t of a mean difference is non-central with delta / sigma times a known factor;
inverting that distribution gives the interval (Cumming and Finch 2001).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import special

from harness.compare.stats.estimates import Effect

SAME_SEED = "a run of B and the run of A of the same seed, for a new seed"
OTHER_SEED = "a run of B and a run of A of another seed"
_QUANTILES = (np.arange(4000) + 0.5) / 4000
"""Probabilities at which the distribution of the estimated SD is sampled."""
_MAX_SPREAD = 40.0
"""Distance, in units of 1 + |t|, within which the noncentrality is looked for."""


@dataclass(frozen=True)
class Superiority:
    """Probability that B ends with the lower loss, with its interval."""

    value: float
    """Median-unbiased estimate."""
    low: float
    high: float
    level: float
    estimand: str
    """Pair of runs that the probability is about."""


def probability_b_better(
    delta: Effect,
    control: np.ndarray,
    treatment: np.ndarray,
    paired: bool,
) -> Superiority | None:
    """Return the probability that B ends with the lower loss, from the t of the mean difference.

    delta: difference treatment minus control; control, treatment: the losses it is of. Paired: of two runs of
    one new seed, by the SD of the pairs' differences. Unpaired: of two runs of any seeds, by the SDs of both
    variants; with Welch's df the interval is approximate. None without a standard error.
    """
    if delta.mean is None or not delta.se or delta.df is None or delta.n < 2:
        return None
    if paired:
        factor, estimand = 1 / math.sqrt(delta.n), SAME_SEED
    else:
        spread = math.sqrt(float(np.var(control, ddof=1)) + float(np.var(treatment, ddof=1)))
        factor, estimand = delta.se / spread, OTHER_SEED
    t, tail = delta.mean / delta.se, (1 - delta.level) / 2
    ends = [noncentrality(t, delta.df, p) * factor for p in (tail, 0.5, 1 - tail)]
    low, value, high = (float(special.ndtr(-end)) for end in ends)
    return Superiority(value, low, high, delta.level, estimand)


def noncentrality(t: float, df: float, probability: float) -> float:
    """Return the noncentrality with which Student's T is at most t with this probability."""
    if math.isinf(df):
        return t - float(special.ndtri(probability))
    from scipy import optimize  # a fifth of a second, which only a verdict over seeds pays

    sd, reach = _estimated_sds(df), _MAX_SPREAD * (1 + abs(t))

    def excess(place: float) -> float:
        return float(special.ndtr(t * sd - place).mean()) - probability

    return cast(float, optimize.brentq(excess, t - reach, t + reach))


@functools.lru_cache(maxsize=32)
def _estimated_sds(df: float) -> np.ndarray:
    """Return quantiles of the estimated SD over the true one: all tails of an interval share them."""
    return np.sqrt(special.chdtri(df, 1 - _QUANTILES) / df)
