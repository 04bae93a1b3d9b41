"""Loss difference of two variants at one scale: paired, moderated or unpaired.

The unit of replication is the seed pair. One pair gives a number but no interval over seeds, however many
steps it has, because its noise is a single draw of the run effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.distributions import f_sf, t_critical, t_two_sided_p
from harness.compare.stats.estimates import Effect, Estimand

ROUNDING_SHARE = 1e-12
"""Share of the losses below which a spread is rounding, not seed noise."""


@dataclass(frozen=True)
class NoiseFloor:
    """Noise of A/A pairs at one scale: the SD `s0` of their difference in nats, and its df."""

    scale: str
    s0: float
    df: float
    correlation: float | None = None


def paired_effect(
    a: ArrayLike, b: ArrayLike, *, floor: NoiseFloor | None = None, level: float = 0.95
) -> Effect:
    """Return the mean of b - a over seed pairs, with an interval for the population of seeds.

    a, b: shape (n,), end-of-run losses of control and treatment, matched by position.
    n >= 4: mean +- t(n-1) s / sqrt(n) (Student 1908). n in {2, 3}: with `floor` the moderated variance
    v = (d0 s0^2 + (n-1) s^2) / (d0 + n - 1) on d0 + n - 1 df (Smyth 2004); without it plain t, LOW_DF.
    n = 1: `trajectory_only`, without interval and p. A loss that is not finite: no number, DIVERGED.
    Raises ValueError if the shapes differ.
    """
    a, b = _as_vector(a), _as_vector(b)
    if a.shape != b.shape:
        raise ValueError(f"paired_effect: {a.size} control losses but {b.size} treatment losses")
    return effect_from_deltas(b - a, loss_size=float(np.abs(a).max(initial=0)), floor=floor, level=level)


def effect_from_deltas(
    deltas: ArrayLike, *, loss_size: float = 0.0, floor: NoiseFloor | None = None, level: float = 0.95
) -> Effect:
    """Return `paired_effect` of differences, shape (n,). `loss_size`: largest |loss|, to detect rounding."""
    d = _as_vector(deltas)
    if d.size == 0 or not np.isfinite(d).all():
        flags = ("DIVERGED",) if d.size else ()
        return Effect(None, None, None, None, d.size, None, "none", flags, Estimand.trajectory_only)
    if d.size == 1:
        return single_pair_effect(float(d[0]))
    variance, df, method, flags = _variance(d, floor)
    se = math.sqrt(variance / d.size)
    if se <= ROUNDING_SHARE * loss_size:
        return _zero_spread_effect(d, method, level)
    return effect_with_interval(float(d.mean()), se, d.size, df, method, flags, level)


def single_pair_effect(delta: float) -> Effect:
    """Return the difference of one pair, without interval: it says nothing about other seeds."""
    flags = ("NO_SEED_REPLICATION",)
    return Effect(delta, None, None, None, 1, None, "one pair", flags, Estimand.trajectory_only)


def effect_with_interval(
    mean: float, se: float, n: int, df: float, method: str, flags: tuple[str, ...] = (), level: float = 0.95
) -> Effect:
    """Return the effect mean +- t(df) se with the two-sided p of mean = 0."""
    half = t_critical(df, level) * se
    p = t_two_sided_p(mean / se, df)
    return Effect(mean, mean - half, mean + half, p, n, df, method, flags, se=se, level=level)


def welch_effect(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return mean(b) - mean(a) over unmatched seeds, with unequal variances (Welch 1947).

    a, b: shapes (n_a,), (n_b,); no interval below two each. df by Satterthwaite; n is the smaller count.
    """
    a, b = _as_vector(a), _as_vector(b)
    n = min(a.size, b.size)
    if n == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        flags = ("DIVERGED",) if n else ()
        return Effect(None, None, None, None, n, None, "none", flags, Estimand.trajectory_only)
    mean = float(b.mean() - a.mean())
    if n == 1:
        return single_pair_effect(mean)
    v_a, v_b = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if v_a + v_b <= (ROUNDING_SHARE * np.abs(a).max()) ** 2:
        return _zero_spread_effect(b - a.mean(), "Welch (unpaired)", level)
    df = (v_a + v_b) ** 2 / (v_a**2 / (a.size - 1) + v_b**2 / (b.size - 1))
    return effect_with_interval(mean, math.sqrt(v_a + v_b), n, float(df), "Welch (unpaired)", level=level)


def variance_mismatch(deltas: Sequence[np.ndarray], floors: Sequence[NoiseFloor | None]) -> bool:
    """Return True if the noise of A/B differences differs from the A/A floor: an F-test pooled over scales.

    F = sum (n_s - 1) v_s / s0_s^2 / sum (n_s - 1), on sum (n_s - 1) and sum d0_s df. The level for noisier
    pairs is a generous .2, since a missed mismatch costs coverage and a false alarm only costs power. For
    quieter pairs it is .01: A/A pairs differ in their initialisation and A/B pairs share it, so a floor can
    be far too high, which costs power. Dropping it by chance costs at most .01 of coverage.
    """
    usable = [(d, f) for d, f in zip(deltas, floors, strict=True) if f and f.df > 0 and len(d) > 1]
    df1, df2 = sum(len(d) - 1 for d, _ in usable), sum(f.df for _, f in usable)
    if not df1:
        return False
    ratio = sum((len(d) - 1) * np.var(d, ddof=1) / f.s0**2 for d, f in usable) / df1
    above = f_sf(float(ratio), df1, df2)
    return above < 0.2 or 1 - above < 0.01


def pearson_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return Pearson's correlation of matched losses; None below three pairs or without spread."""
    a, b = _as_vector(a), _as_vector(b)
    if a.size < 3 or a.size != b.size or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    if min(a.std(), b.std()) <= ROUNDING_SHARE * np.abs(a).max():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def outlier_masks(deltas: Sequence[np.ndarray], limit: float = 5.0) -> list[np.ndarray]:
    """Return, per scale, the mask (n,) of pairs further than `limit` pooled MAD from their scale's median.

    The MAD is scaled to a normal SD (1.4826) and pooled over scales with three or more pairs. The smallest
    residual of each scale is left out: the median makes it zero. Below four residuals no pair is an outlier.
    """
    gaps = [np.abs(d - np.median(d)) if len(d) else np.zeros(0) for d in deltas]
    pool = np.concatenate([np.sort(gap)[1:] for gap in gaps if len(gap) >= 3] or [np.zeros(0)])
    if pool.size < 4:
        return [np.zeros(len(d), bool) for d in deltas]
    scale = 1.4826 * float(np.median(pool))
    return [(gap > limit * scale) & (scale > 0) for gap in gaps]


def _variance(d: np.ndarray, floor: NoiseFloor | None) -> tuple[float, float, str, tuple[str, ...]]:
    """Return the variance of one difference, its df, the name of the method and flags."""
    n, sample_variance = d.size, float(d.var(ddof=1))
    if n >= 4:
        return sample_variance, n - 1, "paired t", ()
    if floor is None or floor.df <= 0:
        return sample_variance, n - 1, "paired t", ("LOW_DF",)
    df = floor.df + n - 1
    return (floor.df * floor.s0**2 + (n - 1) * sample_variance) / df, df, "moderated t", ()


def _zero_spread_effect(d: np.ndarray, method: str, level: float) -> Effect:
    """Return the effect of pairs without spread: zero if all are equal, no interval if all shift alike."""
    mean, flags = float(d.mean()), ("CORRELATION_IMPLAUSIBLE",)
    if not d.any():
        return Effect(0.0, 0.0, 0.0, 1.0, d.size, d.size - 1.0, method, flags, se=0.0, level=level)
    return Effect(mean, None, None, None, d.size, d.size - 1.0, method, flags, Estimand.trajectory_only)


def _as_vector(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1)


def trajectory_band(deltas: ArrayLike, *, lags: int | None = None, level: float = 0.95) -> Effect:
    """Return the mean of a pair's per-step differences with a Newey-West band, `trajectory_only`, p None.

    The band holds for these trajectories, not for other seeds: most of a pair's difference is a run effect
    that lasts longer than any window of steps. On real logs a test based on such a band rejects a true null
    over nine times in ten, so it has no p.

    deltas: shape (steps,), consecutive, finite. Var = [g_0 + 2 sum_l (1 - l / (lags + 1)) g_l] / n with
    autocovariances g_l (Newey and West 1987, Bartlett); lags default to 4 (n / 100)^(2/9). No band below
    three steps or if a delta is not finite.
    """
    d = _as_vector(deltas)
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
