"""Trend of an advantage over scale: the slope of ln k on ln compute, and a projection of one decade."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.compute_multiplier import satterthwaite, slope_weights
from harness.compare.stats.distributions import t_critical, t_two_sided_p
from harness.compare.stats.estimates import Direction, Multiplier, Projection, Trend

HOLDS_ABOVE = -0.01
"""Lower end of gamma, per e-fold of compute, above which the advantage HOLDS."""
DECADE = math.log(10)


def trend(
    log_compute: ArrayLike, multipliers: Sequence[Multiplier], *, sign: float = 1.0, level: float = 0.95
) -> Trend | None:
    """Return gamma = sum c_s ln k_s, the slope of ln k on ln C weighted by g_s^2. None below three scales.

    log_compute: shape (scales,), ln FLOPs of a control run. sign: sign of the pooled effect, so that a
    negative gamma always means a shrinking advantage. SE and df by Satterthwaite. The direction is the first
    that applies: SHRINKS (upper end < 0), GROWS (lower > 0), HOLDS (lower > -.01 per e-fold), else
    UNRESOLVED.
    """
    x, usable = _scales_with_interval(log_compute, multipliers)
    if len(usable) < 3:
        return None
    log_k, _, contrast, _ = _fit_line(x, usable)
    gamma = (sign or 1.0) * float(contrast @ log_k)
    se, df = satterthwaite(contrast, usable)
    half = t_critical(df, level) * se
    p = t_two_sided_p(gamma / se, df) if se else float(gamma == 0)
    low, high = gamma - half, gamma + half
    not_resolved = Direction.HOLDS if low > HOLDS_ABOVE else Direction.UNRESOLVED
    direction = Direction.SHRINKS if high < 0 else Direction.GROWS if low > 0 else not_resolved
    return Trend(gamma, low, high, p, df, len(usable), direction, (sign or 1.0) * gamma)


def project(
    log_compute: ArrayLike, multipliers: Sequence[Multiplier], *, ahead: float = DECADE, level: float = 0.95
) -> Projection | None:
    """Return ln k at e^ahead times the largest compute, with a prediction interval. None below three scales.

    The variance is that of the line there, times phi = max(1, chi^2 / (S - 2)) if the scales scatter more
    than their errors, plus the scatter of one scale beyond its error. No decision uses it: the sign at the
    largest scale trained predicts better (DataDecide, 2025).
    """
    x, usable = _scales_with_interval(log_compute, multipliers)
    if len(usable) < 3:
        return None
    log_k_S, weights, contrast, centre = _fit_line(x, usable)
    target = float(x.max()) + ahead
    coefficients = weights + (target - centre) * contrast
    log_k = float(coefficients @ log_k_S)
    se, df = satterthwaite(coefficients, usable)
    mean, gamma = weights @ log_k_S, contrast @ log_k_S
    spread, phi = _scatter(log_k_S - mean - (x - centre) * gamma, usable)
    crossing = centre - float(mean) / float(gamma) if gamma else math.inf
    near = x.min() - DECADE <= crossing <= x.max() + DECADE
    half = t_critical(df, level) * math.sqrt(se**2 * phi + (phi - 1) * spread)
    low, high = log_k - half, log_k + half
    return Projection(
        _safe_exp(target), _safe_exp(log_k), _safe_exp(low), _safe_exp(high), log_k, low, high,
        _safe_exp(crossing) if near else None,
    )  # fmt: skip


def line_at(log_compute: ArrayLike, multipliers: Sequence[Multiplier], log_target: float) -> float | None:
    """Return ln k of the weighted line at ln compute `log_target`. None below three scales."""
    x, usable = _scales_with_interval(log_compute, multipliers)
    if len(usable) < 3:
        return None
    log_k_S, weights, contrast, centre = _fit_line(x, usable)
    return float((weights + (log_target - centre) * contrast) @ log_k_S)


def _scales_with_interval(
    log_compute: ArrayLike, multipliers: Sequence[Multiplier]
) -> tuple[np.ndarray, list[Multiplier]]:
    """Return ln compute and multipliers of the scales with an interval; empty below three compute values."""
    pairs = [
        (float(x), m)
        for x, m in zip(np.asarray(log_compute, float), multipliers, strict=True)
        if m.log_k is not None and m.log_se is not None and m.df and math.isfinite(x)
    ]
    if len({x for x, _ in pairs}) < 3:
        return np.zeros(0), []
    return np.array([x for x, _ in pairs]), [m for _, m in pairs]


def _fit_line(
    x: np.ndarray, multipliers: Sequence[Multiplier]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return ln k, the weights of its mean, the coefficients of its slope and the weighted centre of x."""
    log_k = np.array([m.log_k for m in multipliers], dtype=float)
    weights = slope_weights(multipliers)
    centre = float(weights @ x)
    contrast = weights * (x - centre)
    return log_k, weights, contrast / float(contrast @ (x - centre)), centre


def _scatter(residual: np.ndarray, multipliers: Sequence[Multiplier]) -> tuple[float, float]:
    """Return the mean error variance of a scale, and phi: chi^2 per df of the scales about the line, >= 1."""
    variances = np.array([(m.log_se or 0.0) ** 2 for m in multipliers])
    if not (variances > 0).all():
        return 0.0, 1.0
    return float(variances.mean()), max(1.0, float((residual**2 / variances).sum()) / (residual.size - 2))


def _safe_exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
