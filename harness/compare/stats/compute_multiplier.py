"""Compute multiplier ln k from a loss difference and the slope of the control's own curve.

The difference is divided by a local slope. Inverting a fitted curve would leak its misfit into k. The slope
comes from one axis only (tokens or compute), and k has the name of that axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.distributions import t_critical, t_two_sided_p
from harness.compare.stats.estimates import Effect, Estimand, Multiplier, SlopeAxis

TOKEN_EXPONENT = 0.35
"""Assumed exponent of a run's excess loss in its tokens (Chinchilla and its replication: .28 to .37). It only
converts the chord from branch to end into the slope at the end: 12 % lower at a ratio of 2. Any exponent from
.2 to .5 changes that by under 6 %."""
EXPONENT_SD = 0.05
"""SD of the true exponent about the assumed one. All scales share this error."""


@dataclass(frozen=True)
class ControlSlope:
    """Slope g = -dL/dln(resource) of the control at its end, in nats per e-fold."""

    estimand: SlopeAxis
    g: float
    se: float | None
    exponent: float
    """Exponent b of the loss E + a x^-b, whose excess over E is g / b. Zero means a straight line in ln x."""
    flags: tuple[str, ...] = ()
    df: float = math.inf
    """Degrees of freedom of `se`; infinite unless it comes from this scale's own seeds."""
    shared_error: float = 0.0
    """Relative error of g common to all scales."""


def horizon_slope(
    branch: ArrayLike, end: ArrayLike, ratio: float, *, exponent: float = TOKEN_EXPONENT
) -> ControlSlope:
    """Return the slope at fixed model size from a cooldown branch to the full run (k_tokens, SLOPE_LOCAL).

    branch, end: shape (n,), the control's losses by seed. ratio: tokens of the full run / tokens of the
    branch. The chord (branch - end) / ln ratio is the slope of x^-b somewhere in between. Times b ln(ratio) /
    (ratio^b - 1) it is the slope at the end. `exponent=0` gives the plain chord.
    """
    branch, end = np.asarray(branch, float), np.asarray(end, float)
    chords = (branch - end) / math.log(ratio)
    bend = _end_slope_over_chord(ratio, exponent)
    se = float(chords.std(ddof=1) / math.sqrt(chords.size)) * bend if chords.size > 1 else None
    shared_error = abs(_end_slope_over_chord(ratio, exponent + EXPONENT_SD) / bend - 1) if exponent else 0.0
    df = max(chords.size - 1.0, 1.0)
    g = float(chords.mean()) * bend
    return ControlSlope(SlopeAxis.k_tokens, g, se, exponent, ("SLOPE_LOCAL",), df, shared_error)


def _end_slope_over_chord(ratio: float, exponent: float) -> float:
    """Return the slope at the end divided by the chord, for a curve x^-exponent."""
    return exponent * math.log(ratio) / (ratio**exponent - 1) if exponent else 1.0


@dataclass(frozen=True)
class LadderFit:
    """Curve L = E + a (C/C0)^-b through the control's end-of-run means, C in FLOPs."""

    E: float
    a: float
    b: float
    C0: float
    residual: float
    """Root mean square residual of the fit, in nats."""
    slopes: tuple[ControlSlope, ...]


def fit_ladder(compute: ArrayLike, loss: ArrayLike, se: ArrayLike | None = None) -> LadderFit | None:
    """Fit the control's curve along the ladder (k_compute). None below four scales.

    compute, loss, se: shape (scales,): FLOPs, mean loss and its standard error. For a given b the fit is
    linear in E >= 0 and a, so only b in (.02, 1) is searched, on a grid and then by golden section, without a
    starting point. POOR_FIT: b or E at its bound, or a residual over 3 standard errors.
    """
    x, y = np.asarray(compute, float), np.asarray(loss, float)
    if x.size < 4 or not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):
        return None
    C0 = float(np.exp(np.log(x).mean()))
    z = np.log(x / C0)
    b = _minimize_scalar(lambda value: _least_squares(z, y, value)[2], 0.02, 1.0)
    E, a, squares = _least_squares(z, y, b)
    residual = math.sqrt(squares / x.size)
    error = residual if se is None else float(np.sqrt(np.mean(np.square(np.asarray(se, float)))))
    error = max(error, 1e-12)
    poor = b < 0.021 or b > 0.99 or E <= 0 or a <= 0 or residual > 3 * error
    flags = ("POOR_FIT",) if poor else ()
    g = b * a * np.exp(-b * z)
    spread = _slope_errors(z, a, b, error, residual)
    slopes = tuple(
        ControlSlope(SlopeAxis.k_compute, float(v), float(s), b, flags, shared_error=float(s / v))
        for v, s in zip(g, spread, strict=True)
    )
    return LadderFit(E, a, b, C0, residual, slopes)


def compute_multiplier(
    delta: Effect, slope: ControlSlope, *, flops_ratio: float | None = None, level: float | None = None
) -> Multiplier:
    """Return ln k = -(1/b) ln(1 + d b / g), with g / b = L_A - E. For b = 0 it is -d / g.

    SE by the delta method: |SE_d / (g (1 + d b / g))| and ln k x the relative error of g, always both
    (without the small errors of g, coverage at k = 1.05 fell by a tenth); df by Satterthwaite. Valid while
    |d| < .5 g / b and g > 0, else SLOPE_OUT_OF_RANGE and no k. flops_ratio: FLOPs per token of the treatment
    over the control's; if further than 1 % from 1, k_per_flop is set.
    """
    g, b, d = slope.g, slope.exponent, delta.mean
    if d is None or not g > 0 or (b and abs(d) >= 0.5 * g / b):
        flags = slope.flags + (() if d is None else ("SLOPE_OUT_OF_RANGE",))
        return Multiplier(
            slope.estimand, df=delta.df, n=delta.n, slope=g, slope_se=slope.se, exponent=b, flags=flags,
            sampling=Estimand.trajectory_only,
        )  # fmt: skip
    curvature = 1 + d * b / g
    log_k = -math.log(curvature) / b if b else -d / g
    shared_se, relative_se = abs(log_k) * slope.shared_error, (slope.se or 0.0) / g
    own_se = 0.0 if slope.shared_error and math.isinf(slope.df) else abs(log_k) * relative_se
    se, df = None, delta.df
    if delta.se is not None and delta.df is not None:
        parts = np.array([(delta.se / (g * curvature)) ** 2, own_se**2, shared_se**2])
        total = float(parts.sum())
        used = float((parts**2 / np.array([delta.df, slope.df, math.inf])).sum())
        se, df = math.sqrt(total), total**2 / used if used else delta.df
    flags = slope.flags + (("POOR_FIT",) if relative_se > 0.33 else ())
    base = multiplier_with_interval(slope.estimand, log_k, se, df, delta.n, flags, level or delta.level)
    per_flop = math.exp(log_k) / flops_ratio if flops_ratio and abs(flops_ratio - 1) > 0.01 else None
    return dataclasses.replace(
        base, slope=g, slope_se=slope.se, exponent=b, k_per_flop=per_flop, shared_se=shared_se,
        sampling=delta.estimand,
    )  # fmt: skip


def pooled_multiplier(multipliers: Sequence[Multiplier], *, level: float = 0.95) -> Multiplier | None:
    """Return one k for all scales: sum w_s ln k_s with fixed weights w_s = g_s^2 / sum g^2.

    Weights estimated from the variances of few seeds would only reach 90 % coverage. df by Satterthwaite
    (1946): (sum w^2 SE^2)^2 / sum((w^2 SE^2)^2 / df_s). Multipliers without an interval are left out; None if
    no multiplier has one. Raises ValueError if estimands are mixed.
    """
    usable = [m for m in multipliers if m.log_k is not None and m.log_se is not None and m.df]
    if not usable:
        return None
    if len({m.estimand for m in usable}) > 1:
        raise ValueError(
            "pooled_multiplier: k_tokens and k_compute are different quantities. Pool only one of them."
        )
    weights = slope_weights(usable)
    log_k = float(weights @ np.array([m.log_k for m in usable]))
    se, df = satterthwaite(weights, usable)
    n = sum(m.n for m in usable)
    flags = tuple(sorted({flag for m in usable for flag in m.flags}))
    return multiplier_with_interval(usable[0].estimand, log_k, se, df, n, flags, level)


def slope_weights(multipliers: Sequence[Multiplier]) -> np.ndarray:
    """Return g_s^2 / sum g^2, shape (scales,): inverse variances if all scales have the same seed noise."""
    squares = np.array([(m.slope or 1.0) ** 2 for m in multipliers])
    return squares / squares.sum()


def satterthwaite(coefficients: np.ndarray, multipliers: Sequence[Multiplier]) -> tuple[float, float]:
    """Return SE and df of sum_s c_s ln k_s. The scales' own errors add as variances. The shared error scales
    every ln k_s alike, so it contributes |sum_s c_s ln k_s| times itself."""
    log_k = np.array([m.log_k for m in multipliers], dtype=float)
    shared_se = np.array([m.shared_se for m in multipliers])
    own_variance = np.array([m.log_se or 0.0 for m in multipliers]) ** 2 - shared_se**2
    parts = coefficients**2 * np.maximum(own_variance, 0.0)
    dfs = np.array([m.df or 1.0 for m in multipliers])
    shared_variance = float(coefficients @ (np.sign(log_k) * shared_se)) ** 2
    total = float(parts.sum()) + shared_variance
    used = float((parts**2 / dfs).sum())
    return math.sqrt(total), total**2 / used if used else float(dfs.min())


def multiplier_with_interval(
    estimand: SlopeAxis, log_k: float, se: float | None, df: float | None, n: int, flags, level: float = 0.95
) -> Multiplier:
    """Return a multiplier with its t interval in ln k and the p of k = 1. Without an SE only k is set."""
    k, flags = math.exp(log_k), tuple(flags)
    if se is None or df is None:
        scope = Estimand.trajectory_only
        return Multiplier(estimand, k, log_k=log_k, df=df, n=n, flags=flags, sampling=scope)
    half = t_critical(df, level) * se
    p = t_two_sided_p(log_k / se, df) if se else float(log_k == 0)
    low, high = log_k - half, log_k + half
    ends = math.exp(low), math.exp(high)
    return Multiplier(estimand, k, *ends, log_k, se, low, high, p, df, n, flags=flags)


def _least_squares(z: np.ndarray, y: np.ndarray, b: float) -> tuple[float, float, float]:
    """Fit y = E + a exp(-b z) with E >= 0 for a given b. Returns E, a and the sum of squared residuals."""
    basis = np.exp(-b * z)
    centred = basis - basis.mean()
    a = float(centred @ y / (centred @ centred))
    E = float(y.mean() - a * basis.mean())
    if E < 0:
        E, a = 0.0, float(basis @ y / (basis @ basis))
    return E, a, float(((y - E - a * basis) ** 2).sum())


def _minimize_scalar(cost, low: float, high: float) -> float:
    """Return the argument that minimizes `cost`: a grid, then golden section around the best cell."""
    grid = np.linspace(low, high, 197)
    best = int(np.argmin([cost(value) for value in grid]))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        lower, upper = right - ratio * (right - left), left + ratio * (right - left)
        left, right = (left, upper) if cost(lower) < cost(upper) else (lower, right)
    return float((left + right) / 2)


def _slope_errors(z: np.ndarray, a: float, b: float, error: float, residual: float) -> np.ndarray:
    """Return the SE of g_s = b a exp(-b z_s), from the means' common error or, if larger, the residuals."""
    basis = np.exp(-b * z)
    jacobian = np.stack([np.ones_like(z), basis, -a * z * basis], axis=1)
    variance = max(error**2, residual**2 * z.size / max(z.size - 3, 1))
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * variance
    gradient = np.stack([np.zeros_like(z), b * basis, a * basis * (1 - b * z)], axis=1)
    return np.sqrt(np.einsum("si,ij,sj->s", gradient, covariance, gradient))
