"""Bet on a larger run: ln k at the largest scale, with the drift that lies between it and the target.

ln k wanders as models grow. Its walk has a declared SD per root e-fold of compute, which the increments along
the ladder correct as far as they tell anything. No trend is added: on public ladders the level at the largest
scale predicts better than a line. From three scales on a line that points the other way withholds the bet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness.compare.stats.compute_multiplier import errors_by_source, own_variances
from harness.compare.stats.distributions import t_critical, t_sf
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.scale_trend import line_at

LEVEL = 0.90
"""Level of the interval, so that each side errs at .05."""
NO_SEEDS_HELP = 4.0
"""Ratio of drift to seed variance above which no number of seeds settles a bet."""


@dataclass(frozen=True)
class Drift:
    """SD of the walk of ln k per root e-fold of compute, and the degrees of freedom of that knowledge."""

    sd: float = 0.03
    df: float = 3.0


@dataclass(frozen=True)
class SeenDrift:
    """Variance q^2 of ln k per e-fold of compute that a ladder showed, and the degrees of freedom of it."""

    q_squared: float
    df: float


MIN_SCALES, MIN_LADDERS, MAX_LIBRARY_DF = 3, 5, 12.0
"""Scales of a ladder whose drift counts, ladders that give a drift, and the most df that they give."""
DATA_DRIFT = Drift(sd=0.15)
"""Drift of a question that touches the data."""


class BetDecision(Enum):
    """Variant to take for a run at the target."""

    BET_B = "BET_B"
    BET_A = "BET_A"
    EITHER = "EITHER"
    """The interval lies inside the margin, so it does not matter."""
    OPEN = "OPEN"


@dataclass(frozen=True)
class Bet:
    """ln k predicted at the target, with its interval at LEVEL. Positive favours the treatment (B)."""

    target_flops: float
    log_k: float
    se: float
    df: float
    low: float
    high: float
    p: float
    """One-sided p of the side that `log_k` favours."""
    chance: float
    """Probability that B is better at the target."""
    drift_variance: float
    """Part of the variance that the distance to the target adds; more seeds do not shrink it."""
    seen_df: float
    """Degrees of freedom of the drift that the ladder itself showed; below 1 it is the declared one."""
    line: float | None
    """ln k of the line through the scales at the target; None below three scales."""

    @property
    def against_line(self) -> bool:
        """True if the line points the other way."""
        return self.line is not None and self.line * self.log_k <= 0

    @property
    def no_seeds_help(self) -> bool:
        """True if drift outweighs seed noise so far that only the next scale or a nearer target helps."""
        return self.drift_variance > NO_SEEDS_HELP * (self.se**2 - self.drift_variance)

    def decide(self, p_holm: float, margin: float, alpha: float = 0.05) -> BetDecision:
        """Return the bet for a one-sided p adjusted over the treatments, and a margin in ln k."""
        if p_holm < alpha and not self.against_line:
            return BetDecision.BET_B if self.log_k > 0 else BetDecision.BET_A
        inside = -margin < self.low and self.high < margin
        return BetDecision.EITHER if inside else BetDecision.OPEN


def bet_at(
    log_flops: Sequence[float],
    multipliers: Sequence[Multiplier],
    target_flops: float,
    drift: Drift = Drift(),  # frozen
) -> Bet | None:
    """Return the prediction of ln k at `target_flops`. log_flops: ln FLOPs of a control run, rising, with the
    multiplier of each scale. None if the largest scale has no interval, or the target is not beyond it."""
    scales = sorted(zip(log_flops, multipliers, strict=True), key=lambda scale: scale[0])
    if not scales or not _has_interval(scales[-1][1]) or not target_flops > 0:
        return None
    usable = [(x, k) for x, k in scales if _has_interval(k) and math.isfinite(x)]
    x, last = usable[-1]
    ahead = math.log(target_flops) - x
    if ahead < 0:
        return None
    q_squared, df, seen_df = _posterior_drift(usable, drift)
    log_k, seed_variance = last.log_k or 0.0, (last.log_se or 0.0) ** 2
    drift_variance = q_squared * ahead
    variance = seed_variance + drift_variance
    used = seed_variance**2 / (last.df or 1.0) + drift_variance**2 / df
    total_df = variance**2 / used if used else last.df or 1.0
    se = math.sqrt(variance)
    half = t_critical(total_df, LEVEL) * se
    t = log_k / se if se else math.copysign(math.inf, log_k)
    return Bet(
        target_flops=target_flops,
        log_k=log_k,
        se=se,
        df=total_df,
        low=log_k - half,
        high=log_k + half,
        p=t_sf(abs(t), total_df),
        chance=1 - t_sf(t, total_df),
        drift_variance=drift_variance,
        seen_df=seen_df,
        line=line_at([x for x, _ in usable], [k for _, k in usable], math.log(target_flops)),
    )


def _has_interval(multiplier: Multiplier) -> bool:
    return multiplier.log_k is not None and multiplier.log_se is not None and bool(multiplier.df)


def _posterior_drift(scales: Sequence[tuple[float, Multiplier]], drift: Drift) -> tuple[float, float, float]:
    """Return q^2 per e-fold, its df, and the df that the scales contribute."""
    ladder = _seen_drift(scales, drift)
    df = drift.df + ladder.df
    return (drift.df * drift.sd**2 + ladder.df * ladder.q_squared) / df, df, ladder.df


def seen_drift(
    log_flops: Sequence[float],
    multipliers: Sequence[Multiplier],
    drift: Drift = Drift(),  # frozen
) -> SeenDrift | None:
    """Return the drift that a ladder of three scales or more shows beyond its noise; None for others."""
    scales = sorted(zip(log_flops, multipliers, strict=True), key=lambda scale: scale[0])
    usable = [(x, k) for x, k in scales if _has_interval(k) and math.isfinite(x)]
    return _seen_drift(usable, drift) if len(usable) >= MIN_SCALES else None


def pooled_drift(ladders: Sequence[SeenDrift]) -> Drift | None:
    """Return the drift of the ladders of one kind of question, weighted by what each tells. None below
    MIN_LADDERS, or if they tell nothing."""
    df = sum(ladder.df for ladder in ladders)
    q_squared = sum(ladder.df * ladder.q_squared for ladder in ladders)
    if len(ladders) < MIN_LADDERS or not df or not q_squared:
        return None
    return Drift(math.sqrt(q_squared / df), min(df, MAX_LIBRARY_DF))


def _seen_drift(scales: Sequence[tuple[float, Multiplier]], drift: Drift) -> SeenDrift:
    """Estimate q^2 from the increments D between neighbours. Their noise e leaves out the error of the slopes
    that cancels between them."""
    q0_squared = drift.sd**2
    if len(scales) < 2:
        return SeenDrift(0.0, 0.0)
    x = np.array([x for x, _ in scales])
    log_k = np.array([k.log_k for _, k in scales], float)
    multipliers = [k for _, k in scales]
    variances, slope_errors_SR = own_variances(multipliers), errors_by_source(multipliers)
    e = variances[:-1] + variances[1:] + (np.diff(slope_errors_SR, axis=0) ** 2).sum(axis=1)
    h, D = np.diff(x), np.diff(log_k)
    h, D, e = (values[h > 0] for values in (h, D, e))
    q_squared_seen, df = 0.0, 0.0
    for q_squared in (q0_squared, None):
        q_squared = max(q0_squared, q_squared_seen) if q_squared is None else q_squared
        c = h / (q_squared * h + e) ** 2
        q_squared_seen = max(0.0, float((c * (D**2 - e)).sum() / (c * h).sum())) if h.size else 0.0
        df = float(((q_squared * h / (q_squared * h + e)) ** 2).sum())
    return SeenDrift(q_squared_seen, df)
