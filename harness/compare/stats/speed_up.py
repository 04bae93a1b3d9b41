"""Effective speed-up s: the multiplier k at equal device-seconds, with the error of the timed ratio.

ln s = ln k - ln(t_B / t_A), with t_A and t_B the seconds a step of control and treatment. The ratio comes
from a timing pass: quads of visits A B B A, in which a linear drift of the machine cancels exactly. The
training runs themselves give no ratio, since the machine is not the same in two of them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.distributions import t_critical, t_two_sided_p
from harness.compare.stats.estimates import Multiplier

STEP_SHARE = 0.2
"""Share of a visit's steps below its statistic. Bursts of a neighbour shorter than a visit lie above it."""
MIN_QUADS, MAX_QUADS = 4, 32
"""Smallest and largest number of quads; with three the interval of s would cover .93 only."""
HALF_WIDTH = 0.01
"""Half width of the interval of the ln ratio below which no further quads are timed."""
NOISY_SD = 0.02
"""SD of the quads above which a shared host may have changed the ratio itself."""


@dataclass(frozen=True)
class TimingRatio:
    """Natural log of the ratio t_B / t_A of the seconds a step, with its t interval over the quads."""

    log_ratio: float
    se: float | None = None
    """Standard error; None below two quads, where the ratio has no interval."""
    df: float | None = None
    quads: int = 0
    sd: float | None = None
    """SD of one quad."""
    level: float = 0.95

    @property
    def half_width(self) -> float:
        """Half width of the interval; infinite if there is none."""
        return math.inf if self.se is None or self.df is None else t_critical(self.df, self.level) * self.se

    @property
    def ratio(self) -> float:
        """Step time of the treatment over that of the control."""
        return math.exp(self.log_ratio)

    @property
    def low(self) -> float:
        """Lower end of the interval of the log."""
        return self.log_ratio - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval of the log."""
        return self.log_ratio + self.half_width

    @property
    def noisy(self) -> bool:
        """True if the quads scatter by more than NOISY_SD."""
        return self.sd is not None and self.sd > NOISY_SD


def visit_statistic(step_seconds: ArrayLike) -> float:
    """Return the 20th percentile of the ln step time of a visit. step_seconds: shape (steps,), each > 0."""
    return float(np.quantile(np.log(np.asarray(step_seconds, float)), STEP_SHARE))


def timing_ratio(visits_Q4: ArrayLike, *, level: float = 0.95) -> TimingRatio:
    """Return the ratio from quads A B B A: the mean of (B1 + B2 - A1 - A2) / 2, with t over the quads.

    visits_Q4: shape (quads, 4), the visits' statistics in the order of time. One quad gives no interval.
    Raises ValueError without a quad, or if a number is not finite.
    """
    visits = np.asarray(visits_Q4, float)
    if visits.ndim != 2 or visits.shape[1] != 4 or not len(visits) or not np.isfinite(visits).all():
        raise ValueError(f"timing_ratio: shape {visits.shape}, but quads of four finite numbers are needed")
    quads = visits @ np.array([-0.5, 0.5, 0.5, -0.5])
    count, mean = len(quads), float(quads.mean())
    if count < 2:
        return TimingRatio(mean, quads=count, level=level)
    sd = float(quads.std(ddof=1))
    return TimingRatio(mean, sd / math.sqrt(count), count - 1.0, count, sd, level)


def next_quads(ratio: TimingRatio) -> int:
    """Return the number of quads to add: as many again until the interval is narrow, up to MAX_QUADS."""
    if ratio.half_width < HALF_WIDTH and ratio.quads >= MIN_QUADS:
        return 0
    return min(max(ratio.quads, MIN_QUADS), MAX_QUADS - ratio.quads)


def effective_speed_up(k: Multiplier, ratio: TimingRatio, *, level: float = 0.95) -> Multiplier:
    """Return s as a multiplier of device-seconds: ln s = ln k - ln(t_B / t_A).

    Variances add, df by Satterthwaite (1946). Without an interval of k or of the ratio s has none. Without k
    there is no s.
    """
    if k.log_k is None:
        return dataclasses.replace(k, k_per_flop=None)
    log_s, se, df = k.log_k - ratio.log_ratio, None, k.df
    if k.log_se is not None and k.df and ratio.se is not None and ratio.df:
        parts = np.array([k.log_se, ratio.se]) ** 2
        used = float((parts**2 / np.array([k.df, ratio.df])).sum())
        se, df = math.sqrt(parts.sum()), float(parts.sum()) ** 2 / used if used else k.df
    s = multiplier_with_interval(k.estimand, log_s, se, df, k.n, k.flags, level)
    return dataclasses.replace(
        s, slope=k.slope, slope_se=k.slope_se, exponent=k.exponent, shared_se=k.shared_se,
        shared_errors=k.shared_errors, shared_df=k.shared_df,
    )  # fmt: skip


def multiplier_per_flop(k: Multiplier) -> Multiplier | None:
    """Return k at equal FLOPs, as the ratio of model FLOPs has no error. None without k; k itself if that
    ratio is within 1 % of 1."""
    if k.k is None or k.log_k is None:
        return None
    return k if k.k_per_flop is None else shifted_multiplier(k, math.log(k.k_per_flop / k.k))


def shifted_multiplier(k: Multiplier, log_factor: float) -> Multiplier:
    """Return k with its interval and p, times a factor that is known exactly."""
    logs = [None if log is None else log + log_factor for log in (k.log_k, k.log_low, k.log_high)]
    numbers = [None if log is None else math.exp(log) for log in logs]
    p = t_two_sided_p(logs[0] / k.log_se, k.df) if logs[0] is not None and k.log_se and k.df else k.p
    return dataclasses.replace(
        k, k=numbers[0], low=numbers[1], high=numbers[2], log_k=logs[0], log_low=logs[1], log_high=logs[2],
        p=p, k_per_flop=None,
    )  # fmt: skip
