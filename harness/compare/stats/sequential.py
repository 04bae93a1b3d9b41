"""Sequential tests: interim looks along a run, or seeds added one at a time. Both control the error rate.

A sweep uses one of the two, never both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from harness.compare.stats.estimates import Effect, Multiplier


class LookOutcome(Enum):
    """Outcome of an interim look: continue, or stop for efficacy or futility."""

    proceed = "continue"
    efficacy = "efficacy"
    futility = "futility"


def alpha_spending(look: int, looks: int, alpha: float = 0.05) -> float:
    """Return the alpha that look k of K spends: alpha [(k/K)^2 - ((k-1)/K)^2]. Looks count from 1.

    This is the power family with rho = 2 (Kim and DeMets 1987), with each look tested at what it spends. The
    sum is alpha, so the error is bounded for any dependence between looks. Raises ValueError for another
    look.
    """
    if not 1 <= look <= looks:
        raise ValueError(f"look {look} of {looks}: looks count from 1 to {looks}")
    return alpha * ((look / looks) ** 2 - ((look - 1) / looks) ** 2)


def sequential_p(effects: Sequence[Effect], looks: int) -> float | None:
    """Return the p of "no difference" that is valid at any stopping time: the minimum over the looks so far
    of p_k alpha / alpha_k, at most 1. None if the last look has no p.

    This is a Bonferroni correction weighted by alpha spending: P(p_k < u alpha_k / alpha for any k) <= u.
    Looks whose difference has the opposite sign of the last one's are left out, so the p supports the
    direction shown. effects: the first of `looks` looks in order, up to the judged one.
    """
    last = effects[-1]
    if last.p is None:
        return None
    scaled_p = [
        effect.p / alpha_spending(number, looks, 1.0)
        for number, effect in enumerate(effects, start=1)
        if effect.p is not None and (effect is last or _same_sign(effect, last))
    ]
    return min(1.0, *scaled_p)


@dataclass
class SequentialTest:
    """Test with K looks, fixed in advance, at decayed checkpoints of one scale. Both variants stop together.

    Efficacy: p < alpha_k / family and the sign agrees with the previous look (so never at the first of
    several). Futility: the interval of ln k, at level 1 - alpha_k, lies inside (-margin, margin).
    """

    looks: int = 4
    alpha: float = 0.05
    margin: float = 0.01
    family: int = 1
    """Number of tests at each look: treatments x scales."""
    effects: list[Effect] = field(default_factory=list)
    outcome: LookOutcome = LookOutcome.proceed

    def add_look(self, delta: Effect, k: Multiplier | None = None) -> LookOutcome:
        """Add the next look and return the outcome, final after a stop. Raises ValueError beyond K looks."""
        level = alpha_spending(len(self.effects) + 1, self.looks, self.alpha) / self.family
        before = self.effects[-1] if self.effects else None
        self.effects.append(delta)
        if self.outcome is LookOutcome.proceed:
            self.outcome = self._decide(delta, before, level, k)
        return self.outcome

    def _decide(
        self, delta: Effect, before: Effect | None, level: float, k: Multiplier | None
    ) -> LookOutcome:
        agrees = self.looks == 1 or (before is not None and _same_sign(before, delta))
        if delta.p is not None and delta.p < level and agrees:
            return LookOutcome.efficacy
        ends = (k.log_low, k.log_high) if k else ()
        inside = bool(ends) and all(end is not None and abs(end) < self.margin for end in ends)
        return LookOutcome.futility if inside else LookOutcome.proceed


@dataclass
class SeedEProcess:
    """E-process against "no difference" while seed pairs are added one at a time.

    log e_n = -.5 ln(1 + n tau^2) - (nu+1)/2 [ln(1 + t^2 / (nu (1 + n tau^2))) - ln(1 + t^2 / nu)], nu = n -
    1: the t likelihood ratio mixed over a normal effect size of SD tau (Rouder et al. 2009; Perez-Ortiz et
    al. 2024). P(e_n >= 1 / alpha for any n) <= alpha, so stopping at any n is valid. The choice to add a seed
    may depend on t or e only, never on the losses.
    """

    tau: float = 2.0
    alpha: float = 0.05
    deltas: list[float] = field(default_factory=list)

    def add(self, delta: float) -> float:
        """Add one pair's difference and return log e. Raises ValueError for a value that is not finite."""
        if not math.isfinite(delta):
            raise ValueError("SeedEProcess: a diverged pair has no difference. Count it, do not add it.")
        self.deltas.append(float(delta))
        return self.log_e

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value so far; 0 without pairs."""
        return float(log_e_values(np.array([self.deltas]), self.tau)[0, -1]) if self.deltas else 0.0

    @property
    def stopped(self) -> bool:
        """True if the e-value has reached 1 / alpha."""
        return self.log_e >= math.log(1 / self.alpha)


def log_e_values(deltas: np.ndarray, tau: float = 2.0) -> np.ndarray:
    """Return log e_n for n = 1 .. N of many sequences, shape (sequences, N) in and out. log e_1 = 0."""
    d = np.asarray(deltas, float)
    n = np.arange(1, d.shape[1] + 1)
    mean = np.cumsum(d, axis=1) / n
    squares = np.maximum(np.cumsum(d**2, axis=1) - n * mean**2, 0.0)
    nu = np.maximum(n - 1, 1)
    width = 1 + n * tau**2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(mean == 0, 0.0, n * mean**2 / squares)  # t^2 / nu
        gain = np.where(np.isinf(ratio), np.log(width), np.log1p(ratio) - np.log1p(ratio / width))
    values = -0.5 * np.log(width) + (nu + 1) / 2 * gain
    return np.where(n == 1, 0.0, values)


def _same_sign(a: Effect, b: Effect) -> bool:
    return (a.mean or 0.0) * (b.mean or 0.0) > 0
