"""The second acceptance table by simulation: HERE, agreement of the scales, and BET, at the level of seeds.

Losses of an arm are a seed effect of correlation .25 and its own noise, SD .0011 in all (real noise; x12 for
models under 1e6 parameters). ln k of a scale is a difference over a slope of .3 nats an e-fold. Scales lie
one decade of compute apart. ln k walks with an SD per root e-fold, or follows a line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from harness.compare.stats.bet import Bet, bet_at
from harness.compare.stats.block_variance import SeedBlock, block_effect, noisier_arms
from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.estimates import Multiplier, SlopeAxis
from harness.compare.stats.heterogeneity import heterogeneity_p
from harness.compare.stats.paired_effects import paired_effect
from tests.compare.simulate import RHO, RUN_SD, Rate

SLOPE = 0.3
DECADE = math.log(10)
TARGET = 10.0
"""Compute of the target over that of the largest scale."""


def arms(rng, treatments: int, n: int, effect: float = 0.0, noisy: float = 1.0) -> np.ndarray:
    """Losses [arm, seed], control first; the first treatment is better by `effect`, the last one noisier."""
    sd = np.ones(treatments + 1)
    sd[-1] = noisy
    own = (1 - RHO) ** 0.5 * rng.normal(size=(treatments + 1, n)) * sd[:, None]
    losses = RUN_SD * (RHO**0.5 * rng.normal(size=n) + own)
    losses[1] -= effect
    return losses + 3.0


def at_largest(reps: int, treatments: int, n: int, effect=0.0, noisy=1.0, arm: int = 1, rng: int = 0) -> Rate:
    """Share of p < .05 for one arm: by the block where it carries it, otherwise by its own pairs."""
    random, hits = np.random.default_rng(rng), 0
    names = tuple(map(str, range(treatments + 1)))
    for _ in range(reps):
        losses = arms(random, treatments, n, effect, noisy)
        block = SeedBlock(names, losses) if treatments > 1 else None
        found = block_effect(block, "0", str(arm)) if block else None
        found = found or paired_effect(losses[0], losses[arm])
        hits += found.p is not None and found.p < 0.05
    return Rate(hits, reps)


def found_noisier(reps: int, treatments: int, n: int, noisy: float, rng: int = 0) -> Rate:
    random = np.random.default_rng(rng)
    names = tuple(map(str, range(treatments + 1)))
    blocks = (SeedBlock(names, arms(random, treatments, n, noisy=noisy)) for _ in range(reps))
    return Rate(sum(names[-1] in noisier_arms(block) for block in blocks), reps)


def multiplier(rng, log_k: float, n: int, noise: float = 1.0) -> Multiplier:
    """ln k of one scale from n pairs, with its own t."""
    sd = noise * RUN_SD * math.sqrt(2 * (1 - RHO)) / SLOPE
    draws = log_k + sd * rng.normal(size=n)
    se = float(draws.std(ddof=1)) / math.sqrt(n)
    found = multiplier_with_interval(SlopeAxis.k_tokens, float(draws.mean()), se, n - 1.0, n, ())
    return dataclasses.replace(found, slope=SLOPE)


def heterogeneous(reps: int, scales: int, n: int, noises: tuple[float, ...], rng: int = 0) -> Rate:
    """Share of equal ladders that are called heterogeneous."""
    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        p = heterogeneity_p([multiplier(random, 0.01, n, noises[s]) for s in range(scales)])
        hits += p is not None and p < 0.1
    return Rate(hits, reps)


Path = Callable[[np.random.Generator, int], np.ndarray]
"""Draw of ln k at each scale and, last, at the target."""


def walk(sd: float, start: float = 0.0) -> Path:
    """ln k walks with this SD per root e-fold from one scale to the next."""

    def draw(rng, scales: int) -> np.ndarray:
        return start + np.cumsum(np.r_[0.0, sd * math.sqrt(DECADE) * rng.normal(size=scales)])

    return draw


def line(slope: float, at_largest: float = 0.0) -> Path:
    """ln k lies on a line of this slope per e-fold."""

    def draw(rng, scales: int) -> np.ndarray:
        return at_largest + slope * DECADE * (np.arange(scales + 1) - (scales - 1))

    return draw


def bets(reps: int, path: Path, scales: int, n: int, noise: float = 1.0, rng: int = 0):
    """Yield (truth at the target, bet) of many ladders."""
    random = np.random.default_rng(rng)
    x = DECADE * np.arange(scales)
    for _ in range(reps):
        truth = path(random, scales)
        ladder = [multiplier(random, value, n, noise) for value in truth[:-1]]
        bet = bet_at(x.tolist(), ladder, math.exp(x[-1]) * TARGET)
        assert bet is not None
        yield float(truth[-1]), bet


def bet_coverage(reps: int, path: Path, scales: int, n: int, rng: int = 0) -> Rate:
    drawn = bets(reps, path, scales, n, rng=rng)
    return Rate(sum(bet.low < truth < bet.high for truth, bet in drawn), reps)


def wrong_bets(reps: int, path: Path, scales: int, n: int, noise: float = 1.0, rng: int = 0) -> Rate:
    """Share of ladders with a bet on the side that is worse at the target."""
    drawn = bets(reps, path, scales, n, noise, rng)
    return Rate(sum(side(bet) * truth < 0 for truth, bet in drawn), reps)


def chance_between(reps: int, low: float, high: float, rng: int = 0) -> float:
    """Share of ladders in which B is better, of those whose chance was said to lie between."""
    random = np.random.default_rng(rng)
    inside = []
    for index in range(reps):
        start = float(random.normal() * 0.06)
        for truth, bet in bets(1, walk(0.03, start), 3, 3, rng=index):
            inside += [truth > 0] * (low < bet.chance < high)
    return sum(inside) / len(inside)


def side(bet: Bet) -> int:
    """Return +1 if B is bet, -1 if A is, 0 if the bet is open."""
    if bet.p >= 0.05 or bet.against_line:
        return 0
    return 1 if bet.log_k > 0 else -1
