"""Compute multiplier ln k from a loss difference and the slope of the control's own curve.

The difference is divided by a local slope. Inverting a fitted curve would leak its misfit into k. The slope
comes from one axis only (tokens or compute), and k has the name of that axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from harness.compare.stats.control_slope import ControlSlope
from harness.compare.stats.distributions import t_critical, t_df, t_two_sided_p
from harness.compare.stats.estimates import Effect, Estimand, Multiplier, SlopeAxis


def compute_multiplier(
    delta: Effect, slope: ControlSlope, *, flops_ratio: float | None = None, level: float | None = None
) -> Multiplier:
    """Return ln k = -(1/b) ln(1 + d b / g), with g / b = L_A - E. For b = 0 it is -d / g.

    SE by the delta method: |SE_d / (g (1 + d b / g))| and ln k x the relative error of g, always both
    (without the small errors of g, coverage at k = 1.05 fell by a tenth); df by Satterthwaite, at two pairs
    at most those of the difference (else coverage .89 at k = 1.3). Valid while |d| < .5 g / b and g > 0, else
    SLOPE_OUT_OF_RANGE and no k. flops_ratio: FLOPs per token of the treatment over the control's; if further
    than 1 % from 1, k_per_flop is set.
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
    shared_errors = tuple(log_k * error for error in slope.shared_errors)
    shared_se, relative_se = math.hypot(*shared_errors), (slope.se or 0.0) / g
    own_se = 0.0 if shared_errors and math.isinf(slope.df) else abs(log_k) * relative_se
    se, df = None, delta.df
    if delta.se is not None and delta.df is not None:
        variances = np.array([(delta.se / (g * curvature)) ** 2, own_se**2])
        se, df = _total_error(variances, np.array([delta.df, slope.df]), shared_se**2, slope.shared_df)
        df = min(df, delta.df) if delta.n == 2 else df
    flags = slope.flags + (("POOR_FIT",) if relative_se > 0.33 else ())
    base = multiplier_with_interval(slope.estimand, log_k, se, df, delta.n, flags, level or delta.level)
    per_flop = math.exp(log_k) / flops_ratio if flops_ratio and abs(flops_ratio - 1) > 0.01 else None
    return dataclasses.replace(
        base, slope=g, slope_se=slope.se, exponent=b, k_per_flop=per_flop, shared_se=shared_se,
        shared_errors=shared_errors, shared_df=slope.shared_df,
        own_df=delta.df if math.isfinite(slope.shared_df) else None, sampling=delta.estimand,
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
    """Return SE and df of sum_s c_s ln k_s. The scales' own errors add as variances. The shared errors add by
    source, sum_s c_s e_sr, before they are squared: what is common to all scales cancels in a contrast."""
    shared_R = coefficients @ errors_by_source(multipliers)
    shared_df = min(m.shared_df for m in multipliers)
    dfs = np.array([m.own_df or m.df or 1.0 for m in multipliers])
    parts = coefficients**2 * own_variances(multipliers)
    return _total_error(parts, dfs, float(shared_R @ shared_R), shared_df)


def own_variances(multipliers: Sequence[Multiplier]) -> np.ndarray:
    """Return the variance of each ln k without what comes from the slope and is shared, shape (scales,)."""
    variances = np.array([(m.log_se or 0.0) ** 2 - m.shared_se**2 for m in multipliers])
    return np.maximum(variances, 0.0)


def errors_by_source(multipliers: Sequence[Multiplier]) -> np.ndarray:
    """Return the errors of ln k by scale and source, shape (scales, sources)."""
    sources = max((len(m.shared_errors) for m in multipliers), default=0)
    return np.array([m.shared_errors + (0.0,) * (sources - len(m.shared_errors)) for m in multipliers])


def _total_error(
    variances: np.ndarray, dfs: np.ndarray, shared_variance: float, shared_df: float
) -> tuple[float, float]:
    """Return SE and df of a sum of independent errors, of which the shared one stands by itself.

    df by Satterthwaite (1946). A shared error that is estimated from few degrees of freedom may by chance be
    small, and his formula then gives it no weight (coverage .86 at one df). So the squares of the two half
    widths are added (Howe 1974), and the df are those that give this half width at .95.
    """
    own_variance, used = float(variances.sum()), float((variances**2 / dfs).sum())
    total = own_variance + shared_variance
    if not shared_variance or math.isinf(shared_df):
        return math.sqrt(total), total**2 / used if used else float(dfs.min())
    own_critical = t_critical(own_variance**2 / used if used else math.inf, 0.95)
    square = own_critical**2 * own_variance + t_critical(shared_df, 0.95) ** 2 * shared_variance
    return math.sqrt(total), t_df(math.sqrt(square / total), 0.95)


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
