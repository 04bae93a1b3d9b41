"""Tail probabilities and quantiles from scipy.special. Importing scipy.stats would take over a second."""

from __future__ import annotations

import math

import numpy as np
from scipy import special


def t_two_sided_p(t: float, df: float) -> float:
    """Return P(|T| >= |t|) for Student's T. The incomplete beta function is exact far in the tail."""
    if math.isinf(df):
        return float(special.erfc(abs(t) / math.sqrt(2)))
    return float(special.betainc(df / 2, 0.5, df / (df + t * t)))


def t_sf(t: float, df: float) -> float:
    """Return P(T >= t) for Student's T."""
    half = t_two_sided_p(t, df) / 2
    return half if t >= 0 else 1 - half


def t_critical(df: float, level: float) -> float:
    """Return the c with P(|T| <= c) = level."""
    if math.isinf(df):
        return float(special.ndtri((1 + level) / 2))
    return float(special.stdtrit(df, (1 + level) / 2))


def t_df(critical: float, level: float) -> float:
    """Return the df at which `t_critical` is `critical`; infinite if that is at most the normal one."""
    if critical <= t_critical(math.inf, level) * (1 + 1e-9):
        return math.inf
    return float(special.stdtridf((1 + level) / 2, critical))


def t_power(noncentrality: float, df: float, level: float) -> float:
    """Return the power of a two-sided t-test at significance 1 - level with t centred at `noncentrality`."""
    critical = t_critical(df, level)
    if math.isinf(df):
        return float(special.ndtr(noncentrality - critical) + special.ndtr(-noncentrality - critical))
    above = 1 - special.nctdtr(df, noncentrality, critical)
    return float(above + special.nctdtr(df, noncentrality, -critical))


def f_sf(f: float, df1: float, df2: float) -> float:
    """Return P(F >= f). An infinite df2 is the chi-squared limit."""
    if math.isinf(df2):
        return float(special.chdtrc(df1, f * df1))
    return float(special.fdtrc(df1, df2, f))


def fisher_exact(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """Return Fisher's exact two-sided p of two counts: the sum over all 2x2 tables at most as likely as the
    observed one (Fisher 1935)."""
    total, total_hits = n + other_n, hits + other_hits
    low, high = max(0, total_hits - other_n), min(n, total_hits)
    table = np.arange(low, high + 1)
    log_p = _log_choose(n, table) + _log_choose(other_n, total_hits - table) - _log_choose(total, total_hits)
    p = np.exp(log_p)
    return float(min(1.0, p[p <= p[hits - low] * (1 + 1e-7)].sum()))


def clopper_pearson(hits: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper and Pearson 1934). `hits` may be fractional, if
    trials score shares (Korn and Graubard 1998)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(special.betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def _log_choose(n: float, k):
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
