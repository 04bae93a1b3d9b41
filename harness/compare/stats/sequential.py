"""Deciding before the end without paying for the peeking: looks along a run, or seeds one at a time.

One of the two a sweep, never both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from harness.compare.stats.estimates import Effect, Multiplier


class LookOutcome(Enum):
    proceed = "continue"
    efficacy = "efficacy"
    futility = "futility"


def alpha_spending(look: int, looks: int, alpha: float = 0.05) -> float:
    """What look k of K may spend: alpha [(k/K)^2 - ((k-1)/K)^2].

    The power family with rho = 2 (Kim and DeMets 1987), each look tested at what it spends: the sum
    is alpha, so the error is bounded whatever the dependence between looks. look counts from 1.
    """
    if not 1 <= look <= looks:
        raise ValueError(f"look {look} of {looks}: looks count from 1 to {looks}")
    return alpha * ((look / looks) ** 2 - ((look - 1) / looks) ** 2)


def sequential_p(effects: Sequence[Effect], looks: int) -> float | None:
    """p of "no difference" that holds whenever one stops: min over the looks so far of p_k alpha / alpha_k,
    at most 1; None where the last look has no p.

    A Bonferroni correction weighted as alpha is spent: P(p_k < u alpha_k / alpha for any k) <= u. A look
    whose difference has another sign than the last one's does not count, so that the p speaks for the
    direction that is shown. seen: the first looks of `looks`, in order, the last of them the one judged.
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
    """K looks at decayed checkpoints of one scale, fixed before the first; both variants stop or neither.

    Efficacy: p < alpha_k / family and the sign agrees with the look before (so never at the first of
    several). Futility: the interval of ln k, given at level 1 - alpha_k, lies inside (-margin, margin).
    """

    looks: int = 4
    alpha: float = 0.05
    margin: float = 0.01
    family: int = 1
    """Treatments times scales: a look is taken at each of them."""
    effects: list[Effect] = field(default_factory=list)
    outcome: LookOutcome = LookOutcome.proceed

    def add_look(self, delta: Effect, k: Multiplier | None = None) -> LookOutcome:
        """Take the next look. Raises ValueError beyond the last one; after a stop it stays stopped."""
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
        if k and k.log_low is not None and k.log_high is not None:
            inside = -self.margin < k.log_low and k.log_high < self.margin
            return LookOutcome.futility if inside else LookOutcome.proceed
        return LookOutcome.proceed


@dataclass
class SeedEProcess:
    """Evidence against "no difference" while pairs of seeds are added one at a time.

    log e_n = -.5 ln(1 + n tau^2) - (nu+1)/2 [ln(1 + t^2 / (nu (1 + n tau^2))) - ln(1 + t^2 / nu)],
    nu = n - 1: the t likelihood ratio mixed over a normal effect size of SD tau (Rouder et al. 2009;
    Perez-Ortiz et al. 2024). P(e_n >= 1 / alpha for any n) <= alpha, so one may stop at will. Whether to add
    a seed may depend on t or e alone, never on the losses themselves.
    """

    tau: float = 2.0
    alpha: float = 0.05
    deltas: list[float] = field(default_factory=list)

    def add(self, delta: float) -> float:
        """Add one pair's difference and return log e. Raises ValueError for a value that is not finite."""
        if not math.isfinite(delta):
            raise ValueError("SeedEProcess: a diverged pair has no difference; it is counted, not averaged")
        self.deltas.append(float(delta))
        return self.log_e

    @property
    def log_e(self) -> float:
        return float(log_e_values(np.array([self.deltas]), self.tau)[0, -1]) if self.deltas else 0.0

    @property
    def stopped(self) -> bool:
        return self.log_e >= math.log(1 / self.alpha)


def log_e_values(deltas: np.ndarray, tau: float = 2.0) -> np.ndarray:
    """log e_n for n = 1 .. N of many sequences: shape (sequences, N) in and out; log e_1 = 0."""
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
