"""Multiple testing (Holm), sign-flip permutation tests and equivalence tests (TOST)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.stats.distributions import t_sf

MAX_EXACT_PAIRS = 18
"""Number of pairs up to which all 2^n sign patterns are enumerated. Above, NUM_DRAWS random ones are used."""
NUM_DRAWS = 9_999


def holm(p: Sequence[float | None], family: int | None = None) -> list[float | None]:
    """Return Holm's step-down adjusted p values (Holm 1979), in the order of `p`.

    A missing p (None or NaN) gives None but counts in the family, since the family was declared in advance.
    `family`: its size, if larger than len(p).
    """
    size = max(family or 0, len(p))
    sorted_p = sorted((value, index) for index, value in enumerate(p) if value is not None and value == value)
    adjusted: list[float | None] = [None] * len(p)
    running = 0.0
    for rank, (value, index) in enumerate(sorted_p):
        running = max(running, min(1.0, (size - rank) * value))
        adjusted[index] = running
    return adjusted


def holm_levels(p: Sequence[float | None], alpha: float = 0.05, family: int | None = None) -> list[float]:
    """Return the level at which Holm tests each p. An interval at 1 - level agrees with Holm's decision."""
    size = max(family or 0, len(p), 1)
    levels, level = [alpha / size] * len(p), alpha / size
    sorted_p = sorted((value, index) for index, value in enumerate(p) if value is not None)
    stopped = False
    for rank, (value, index) in enumerate(sorted_p):
        level = level if stopped else alpha / (size - rank)
        levels[index] = level
        stopped = stopped or value >= level
    return levels


def sign_flip(deltas: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> float | None:
    """Return the two-sided p of a sign-flip permutation test, stratified by scale (Fisher 1935).

    deltas: one array of pair differences per scale. Statistic: |sum_s w_s mean_j d_sj|, with equal weights by
    default. No variance is estimated, so the test is exact for symmetric noise. None if a delta is not
    finite.
    """
    weights = weights or [1.0] * len(deltas)
    parts = [w * np.asarray(d) / len(d) for d, w in zip(deltas, weights, strict=True) if len(d)]
    flat = np.concatenate(parts) if parts else np.zeros(0)
    if not flat.size or not np.isfinite(flat).all():
        return None
    observed = abs(flat.sum()) * (1 - 1e-12)
    if flat.size <= MAX_EXACT_PAIRS:
        return float(np.mean(np.abs(_all_sums(flat)) >= observed))
    return float((1 + np.sum(np.abs(_random_sums(flat)) >= observed)) / (1 + NUM_DRAWS))


def smallest_p(pairs: int) -> float | None:
    """Return the smallest two-sided sign-flip p that n pairs can reach, 2^(1-n). None without pairs."""
    return 2.0 ** (1 - pairs) if pairs > 0 else None


def tost(mean: float | None, se: float | None, df: float | None, margin: float) -> float | None:
    """Return the p of |mean| >= margin by two one-sided t-tests (Schuirmann 1987). Small means equivalent."""
    if mean is None or not se or df is None:
        return None
    return max(t_sf((margin - mean) / se, df), t_sf((margin + mean) / se, df))


def _all_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of all 2^n sign patterns."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of NUM_DRAWS random sign patterns, the same ones at every call."""
    width = -(-values.size // 8)
    noise = np.frombuffer(np.random.default_rng(0).bytes(NUM_DRAWS * width), np.uint8)
    heads = np.unpackbits(noise.reshape(NUM_DRAWS, width), axis=1, count=values.size)
    return 2 * (heads @ values) - values.sum()
