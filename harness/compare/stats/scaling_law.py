"""Chinchilla scaling law L(N, D) = E + A / N^alpha + B / D^beta, with a check that its fit converged.

Optimizers report success far from the minimum of this objective. So a fit only counts as converged if
distinct starts end at the same objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

OBJECTIVE_SCALE = 1e6
"""Factor on the objective: the optimizer's absolute tolerances suit numbers near 1."""
HUBER_DELTA = 1e-3
"""Log-loss residual at which Huber's loss turns from quadratic to linear (Hoffmann et al. 2022, D.3)."""
START_AGREEMENT = 1e-8
"""Relative tolerance within which the objectives of two distinct starts agree."""
PERFECT_FIT = 1e-14
"""Objective of a perfect fit, up to rounding."""
MIN_POINTS = 15
BFGS_OPTIONS = {"maxiter": 5000, "gtol": 1e-7}

Minimizer = Callable[[Callable, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ScalingLaw:
    """Fitted scaling law. `objective`: summed Huber loss of the log residuals. If `converged` is False the
    optimizer stopped early and the numbers must not be used."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    converged: bool
    points: int
    starts: int
    agreeing: int
    """Number of distinct starts that ended at the best objective."""
    reason: str = ""

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> np.ndarray:
        """Return the loss at N parameters and D tokens, of any shapes that broadcast."""
        n, d = np.asarray(params, float), np.asarray(tokens, float)
        return self.E + self.A / n**self.alpha + self.B / d**self.beta


@dataclass(frozen=True)
class ScalingLawInterval:
    """Percentile bootstrap interval (low, high) of each parameter, over resampled points."""

    E: tuple[float, float]
    A: tuple[float, float]
    B: tuple[float, float]
    alpha: tuple[float, float]
    beta: tuple[float, float]
    draws: int
    """Number of resamples that converged to a finite fit."""


def _minimize(function: Callable, start: np.ndarray) -> np.ndarray:
    """Run BFGS, restarted from its end until it gains nothing: its first stop is often early.

    Dense BFGS suits five unknowns: L-BFGS-B's tiny LAPACK calls wake every core and are ten times slower.
    """
    from scipy import optimize

    best, value = start, np.inf
    for _ in range(20):
        result = optimize.minimize(function, best, jac=True, method="BFGS", options=BFGS_OPTIONS)
        gain, best = value - result.fun, result.x
        if not gain > 1e-11 * abs(result.fun):
            break
        value = result.fun
    return best


def fit_scaling_law(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    starts: int = 24,
    minimize: Minimizer = _minimize,
) -> ScalingLaw:
    """Fit by Huber's loss (1e-3) on log residuals in log-sum-exp form (Hoffmann et al. 2022, approach 3).

    params, tokens, loss: shape (points,), at least 15, all positive. Analytic gradient, BFGS with gtol 1e-7
    on the objective times 1e6, from `starts` >= 24 spread starts, each restarted from its end.
    minimize(objective, start): replacement of the optimizer (tests show with it that a poor one is caught).
    Raises ValueError for too few or non-positive points.
    """
    data, centre = _centred_logarithms(params, tokens, loss)
    ends = [minimize(lambda theta: huber_objective(theta, *data), s) for s in _start_points(max(starts, 24))]
    values = np.array([huber_objective(end, *data)[0] / OBJECTIVE_SCALE for end in ends])
    best = int(np.nanargmin(values))
    agreeing = int((values - values[best] <= START_AGREEMENT * values[best] + PERFECT_FIT).sum())
    value, gradient = huber_objective(ends[best], *data)
    # Early stops that agree are steeper.
    is_flat = bool(np.abs(gradient).max() < 1e-5 * value + OBJECTIVE_SCALE * PERFECT_FIT)
    converged = agreeing >= 2 and is_flat
    reason = f"only {agreeing} of {len(ends)} starts ended at the best objective, or not at a flat point"
    return ScalingLaw(
        *_law_parameters(ends[best], centre), float(values[best]), converged, data[2].size, len(ends),
        agreeing, "" if converged else reason,
    )  # fmt: skip


def bootstrap_scaling_law(
    law: ScalingLaw, params: ArrayLike, tokens: ArrayLike, loss: ArrayLike, *, draws: int = 400, rng: int = 0
) -> ScalingLawInterval:
    """Resample the points, refit from `law` (warm start) and return the 95 % percentile intervals."""
    data, centre = _centred_logarithms(params, tokens, loss)
    a, b = np.log(law.A) - law.alpha * centre[0], np.log(law.B) - law.beta * centre[1]
    random, start = np.random.default_rng(rng), np.array([a, b, np.log(law.E), law.alpha, law.beta])
    rows = []
    for _ in range(draws):
        indices = random.integers(0, data[2].size, data[2].size)
        sample = tuple(column[indices] for column in data)
        end = _minimize(lambda theta, s=sample: huber_objective(theta, *s), start)
        rows.append(_law_parameters(end, centre))
    finite_rows = np.array([row for row in rows if np.isfinite(row).all()])
    low, high = np.quantile(finite_rows, [0.025, 0.975], axis=0)
    E, A, B, alpha, beta = zip(low.tolist(), high.tolist(), strict=True)
    return ScalingLawInterval(E, A, B, alpha, beta, len(finite_rows))


def huber_objective(
    theta: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return OBJECTIVE_SCALE x summed Huber loss and its gradient at theta = (ln A, ln B, ln E, alpha, beta).

    All columns are logarithms, shape (points,). If they are centred, A and B are those at the centre.
    """
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    top = terms.max(axis=0)
    total = top + np.log(np.exp(terms - top).sum(axis=0))
    residual = total - log_loss
    size = np.abs(residual)
    value = np.where(size <= HUBER_DELTA, 0.5 * residual**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA)).sum()
    pull = np.clip(residual, -HUBER_DELTA, HUBER_DELTA) * np.exp(terms - total)
    gradient = np.array([pull[0].sum(), pull[1].sum(), pull[2].sum(), -(pull[0] @ log_n), -(pull[1] @ log_d)])
    return float(OBJECTIVE_SCALE * value), OBJECTIVE_SCALE * gradient


def _start_points(count: int) -> np.ndarray:
    """Return spread starts (count, 5), the same at every call. A and B are losses at the data's centre."""
    random = np.random.default_rng(0)
    low, high = np.array([-3.0, -3.0, -1.0, 0.1, 0.1]), np.array([1.0, 1.0, 1.0, 0.8, 0.8])
    return low + (high - low) * random.random((count, 5))


def _law_parameters(
    theta: np.ndarray, centre: tuple[float, float]
) -> tuple[float, float, float, float, float]:
    """Return E, A, B, alpha, beta of a point of the centred search."""
    a, b, e, alpha, beta = theta.tolist()
    A, B = float(np.exp(a + alpha * centre[0])), float(np.exp(b + beta * centre[1]))
    return float(np.exp(e)), A, B, alpha, beta


def _centred_logarithms(
    params: ArrayLike, tokens: ArrayLike, loss: ArrayLike
) -> tuple[tuple[np.ndarray, ...], tuple[float, float]]:
    """Return ln N and ln D less their means, ln L, and these means. A and alpha are then less correlated, and
    the search is far shorter."""
    columns = [np.asarray(column, float).reshape(-1) for column in (params, tokens, loss)]
    if len({column.size for column in columns}) > 1 or columns[0].size < MIN_POINTS:
        sizes = ", ".join(str(column.size) for column in columns)
        raise ValueError(f"fit_scaling_law needs {MIN_POINTS} or more points of each column; got {sizes}")
    if not all(np.isfinite(column).all() and (column > 0).all() for column in columns):
        raise ValueError("fit_scaling_law: parameters, tokens and losses must be positive and finite")
    log_n, log_d, log_loss = (np.log(column) for column in columns)
    centre = float(log_n.mean()), float(log_d.mean())
    return (log_n - centre[0], log_d - centre[1], log_loss), centre
