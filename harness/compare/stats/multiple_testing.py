"""Many answers at once, answers without a normal law, and answers of "no difference"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.stats.distributions import t_sf

MAX_EXACT_PAIRS = 18
"""Pairs up to which all 2^n sign patterns are walked; beyond, DRAWS random ones from a fixed seed."""
NUM_DRAWS = 9_999


def holm(p: Sequence[float | None], family: int | None = None) -> list[float | None]:
    """Holm's step-down adjusted p (Holm 1979), in the given order.

    A missing p (None or NaN) is None but counts in the family, which was declared before anyone looked;
    `family` may name a larger one.
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
    """The level at which Holm's procedure tests each: an interval at 1 - level agrees with its verdict."""
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
    """Exact two-sided p of "each pair's sign is a coin", stratified by scale.

    deltas: one array of pair differences a scale; statistic: |sum_s w_s mean_j d_sj|, with equal
    weights by default (Fisher 1935). No variance is estimated, so it is exact for symmetric noise.
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
    """The smallest two-sided sign-flip p that so many pairs can attain: 2^(1-n)."""
    return 2.0 ** (1 - pairs) if pairs > 0 else None


def tost(mean: float | None, se: float | None, df: float | None, margin: float) -> float | None:
    """p of "|mean| >= margin" by two one-sided t-tests (Schuirmann 1987); small: equivalent."""
    if mean is None or not se or df is None:
        return None
    return max(t_sf((margin - mean) / se, df), t_sf((margin + mean) / se, df))


def _all_sums(values: np.ndarray) -> np.ndarray:
    """The sums of all 2^n sign patterns."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_sums(values: np.ndarray) -> np.ndarray:
    """The sums of DRAWS random sign patterns, the same ones at every call."""
    width = -(-values.size // 8)
    noise = np.frombuffer(np.random.default_rng(0).bytes(NUM_DRAWS * width), np.uint8)
    heads = np.unpackbits(noise.reshape(NUM_DRAWS, width), axis=1, count=values.size)
    return 2 * (heads @ values) - values.sum()
