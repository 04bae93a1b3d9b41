"""Slope of the control's loss at each scale, along tokens or along the ladder, with its errors.

Errors of slopes that come from one curve are correlated between scales. They are kept as loadings on
independent sources, so that a trend over scales knows which of them cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.estimates import SlopeAxis

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
    """Degrees of freedom of `se` if it comes from this scale's own seeds; infinite if `shared_errors` are all
    that it consists of."""
    shared_errors: tuple[float, ...] = ()
    """Relative errors of g by independent source. A source stands at the same place at every scale."""
    shared_df: float = math.inf
    """Degrees of freedom of `shared_errors`."""


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
    shared_errors = (shared_error,) if shared_error else ()
    return ControlSlope(SlopeAxis.k_tokens, g, se, exponent, ("SLOPE_LOCAL",), df, shared_errors)


def length_slope(
    end_losses: ArrayLike, other_losses: ArrayLike, ratio: float, *, exponent: float = TOKEN_EXPONENT
) -> ControlSlope:
    """Return the slope at the end of the control's runs from other runs of it, of another length, all decayed
    at their ends (k_tokens, SLOPE_LOCAL).

    end_losses, other_losses: shapes (n,), (m,), over unmatched seeds. ratio: tokens of the other runs over
    those of the control. Both lengths count as equally noisy: pooled variance on n + m - 2 df; one run of
    each has no SE. The chord becomes the slope at the end as in `horizon_slope`.
    """
    end_N, other_M = np.asarray(end_losses, float), np.asarray(other_losses, float)
    bend = _end_slope_over_chord(1 / ratio, exponent)
    g = float(end_N.mean() - other_M.mean()) / math.log(ratio) * bend
    df = end_N.size + other_M.size - 2.0
    squares = sum(float(((losses - losses.mean()) ** 2).sum()) for losses in (end_N, other_M))
    error = math.sqrt(squares / df * (1 / end_N.size + 1 / other_M.size)) if df > 0 else None
    se = None if error is None else error / abs(math.log(ratio)) * bend
    shared_error = abs(_end_slope_over_chord(1 / ratio, exponent + EXPONENT_SD) / bend - 1)
    return ControlSlope(SlopeAxis.k_tokens, g, se, exponent, ("SLOPE_LOCAL",), max(df, 1.0), (shared_error,))


def given_slope(g: float) -> ControlSlope:
    """Return a slope that is told: `g` nats an e-fold of tokens, without error (k_tokens, SLOPE_GIVEN)."""
    return ControlSlope(SlopeAxis.k_tokens, g, None, TOKEN_EXPONENT, ("SLOPE_GIVEN",))


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
    starting point. POOR_FIT: b or E at its bound, or a residual over 3 standard errors. Means that scatter
    about the curve by more than their errors make every slope less certain, on S - 3 degrees of freedom.
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
    seed_variance = 0.0 if se is None else error**2
    errors_SR, df = _slope_errors(z, a, b, squares / (x.size - 3), seed_variance)
    slopes = tuple(
        ControlSlope(
            SlopeAxis.k_compute, float(value), float(np.linalg.norm(errors_R)), b, flags,
            shared_errors=tuple((errors_R / value).tolist()), shared_df=df,
        )
        for value, errors_R in zip(g, errors_SR, strict=True)
    )  # fmt: skip
    return LadderFit(E, a, b, C0, residual, slopes)


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


def _slope_errors(
    z: np.ndarray, a: float, b: float, scatter: float, seed_variance: float
) -> tuple[np.ndarray, float]:
    """Return the errors of the slopes g_s = b a exp(-b z_s) by scale and source, [S, 2 S], and their df.

    scatter: variance of the means about the curve, on S - 3 df; seed_variance: what seeds explain of it,
    taken as known. The first S sources are the errors of the means, of which the fit makes errors of all
    slopes (delta method). The others are bends of the control between scales: scatter beyond the seeds, of
    SD e, that is smooth over the distance h of neighbours has slopes of SD e / h, independent between scales.
    """
    basis = np.exp(-b * z)
    jacobian = np.stack([np.ones_like(z), basis, -a * z * basis], axis=1)
    gradient = np.stack([np.zeros_like(z), b * basis, a * basis * (1 - b * z)], axis=1)
    variance, df = (scatter, z.size - 3.0) if scatter > seed_variance else (seed_variance, math.inf)
    from_curve = gradient @ np.linalg.pinv(jacobian) * math.sqrt(variance)
    bends = math.sqrt(max(scatter - seed_variance, 0.0)) / _neighbour_distance(z)
    return np.hstack([from_curve, np.diag(bends)]), df


def _neighbour_distance(z: np.ndarray) -> np.ndarray:
    """Return the mean distance of each scale to its neighbours, in e-folds; equal scales count as one."""
    distinct, index = np.unique(z, return_inverse=True)
    return np.gradient(np.arange(distinct.size, dtype=float), distinct)[index] ** -1
