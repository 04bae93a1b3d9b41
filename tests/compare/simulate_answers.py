"""The rest of the second acceptance table by simulation: what pooling calls, which side is bet, what a chance
is worth, ln k at two seeds, and pairs that were matched by FLOPs. Noise and ladders as in `simulate_bets`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.stats.compute_multiplier import compute_multiplier, pooled_multiplier
from harness.compare.stats.control_slope import horizon_slope
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.paired_effects import effect_from_deltas
from tests.compare.simulate import REFERENCE, RHO, RUN_SD, Rate, losses
from tests.compare.simulate_bets import DECADE, Path, bets, multiplier, side
from tests.compare.synthetic import surface

HALF_AND_END = np.array([0.5, 1.0])


def heavy_walk(sd: float) -> Path:
    """ln k walks by steps with the tails of t with 3 df."""

    def draw(rng, scales: int) -> np.ndarray:
        steps = sd * math.sqrt(DECADE / 3) * rng.standard_t(3, size=scales)
        return np.cumsum(np.r_[0.0, steps])

    return draw


def random_line(sd: float, at_largest: float = 0.05) -> Path:
    """ln k lies on a line; its slope an e-fold and its value at the largest scale are drawn anew."""

    def draw(rng, scales: int) -> np.ndarray:
        x = DECADE * (np.arange(scales + 1) - (scales - 1))
        return at_largest * rng.normal() + sd * rng.normal() * x

    return draw


def saturating(size: float) -> Path:
    """ln k rises or falls to a limit, half of the way a decade."""
    return lambda rng, scales: size * rng.choice([-1, 1]) * (1 - 0.5 ** np.arange(scales + 1))


def scattered(sd: float) -> Path:
    """ln k of each scale is drawn by itself."""
    return lambda rng, scales: sd * rng.normal(size=scales + 1)


def constant(log_k: float) -> Path:
    return lambda rng, scales: np.full(scales + 1, log_k)


def zero_at_largest(path: Path) -> Path:
    """The path, shifted so that the truth at the largest scale is zero."""

    def draw(rng, scales: int) -> np.ndarray:
        values = path(rng, scales)
        return values - values[scales - 1]

    return draw


def pooled_with_sign(reps: int, path: Path, scales: int, n: int, rng: int = 0) -> Rate:
    """Share of ladders, zero at the largest scale, that pooling calls: its interval is clear of zero and the
    sign at the largest scale agrees."""
    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        truth = zero_at_largest(path)(random, scales)
        ladder = [multiplier(random, value, n) for value in truth[:-1]]
        pooled = pooled_multiplier(ladder)
        assert pooled is not None
        assert pooled.log_low is not None
        assert pooled.log_high is not None
        sign = math.copysign(1.0, ladder[-1].log_k or 0.0)
        hits += pooled.log_low > 0 < sign or pooled.log_high < 0 > sign
    return Rate(hits, reps)


@dataclass(frozen=True)
class BetShares:
    """Wrong bets of ladders, and of the bets that were made."""

    of_ladders: Rate
    of_bets: Rate


def bet_shares(reps: int, path: Path, scales: int, n: int, noise: float = 1.0, rng: int = 0) -> BetShares:
    sides = [(side(bet), truth) for truth, bet in bets(reps, path, scales, n, noise, rng)]
    wrong = sum(chosen * truth < 0 for chosen, truth in sides)
    return BetShares(Rate(wrong, reps), Rate(wrong, max(1, sum(chosen != 0 for chosen, _ in sides))))


CHANCES = ((0.05, 0.2), (0.2, 0.4), (0.6, 0.8), (0.8, 0.95))


def told_chances(reps: int, scales: int = 3, n: int = 3, rng: int = 0) -> list[float]:
    """Share of ladders in which B is better at the target, of those with a chance told in each of CHANCES."""
    random = np.random.default_rng(rng)
    told, better = np.zeros(reps), np.zeros(reps)
    for index in range(reps):
        start = 0.06 * random.normal()
        step = 0.03 * math.sqrt(DECADE) * random.normal(size=scales)
        path = start + np.cumsum(np.r_[0.0, step])
        ((truth, bet),) = bets(1, lambda _, __, path=path: path, scales, n, rng=index)
        told[index], better[index] = bet.chance, truth > 0
    return [float(better[(low < told) & (told < high)].mean()) for low, high in CHANCES]


def k_of_two_seeds(reps: int, k: float, n: int = 2, rng: int = 0) -> Rate:
    """Coverage of ln k of one scale, the control's slope from its own branches."""
    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        a, b = losses(random, n, REFERENCE, k, HALF_AND_END)
        hits += _holds(_multiplier(a, (b - a)[:, 1]), math.log(k))
    return Rate(hits, reps)


@dataclass(frozen=True)
class Matched:
    """ln k at equal FLOPs: mean error and coverage."""

    bias: float
    coverage: Rate


def compute_matched(reps: int, ratio: float, k: float = 1.05, n: int = 3, rng: int = 0) -> Matched:
    """Pairs at equal FLOPs: the treatment needs `ratio` as many FLOPs a token and reads so many fewer tokens.
    No batch is shared; ln k at equal FLOPs is ln k - ln ratio."""
    random, truth = np.random.default_rng(rng), math.log(k / ratio)
    tokens, errors, hits = 20 * REFERENCE, [], 0
    for _ in range(reps):
        common, own = random.normal(size=(n, 1)), random.normal(size=(2, n, 1))
        effects = RUN_SD * (RHO**0.5 * common + (1 - RHO) ** 0.5 * own) * (9 - 8 * HALF_AND_END)
        a = surface(REFERENCE, tokens * HALF_AND_END) + effects[0]
        b = surface(REFERENCE, tokens * HALF_AND_END / ratio, k) + effects[1]
        found = _multiplier(a, (b - a)[:, 1])
        assert found.log_k is not None
        errors.append(found.log_k - truth)
        hits += _holds(found, truth)
    return Matched(float(np.mean(errors)), Rate(hits, reps))


def _multiplier(control_N2: np.ndarray, deltas_N: np.ndarray) -> Multiplier:
    slope = horizon_slope(control_N2[:, 0], control_N2[:, 1], 2.0)
    return compute_multiplier(effect_from_deltas(deltas_N), slope)


def _holds(k: Multiplier, truth: float) -> bool:
    return k.log_low is not None and k.log_high is not None and k.log_low < truth < k.log_high


def extremes(rates: Sequence[Rate]) -> str:
    """Return `0.0440 to 0.0530, n = 4000 each`, or the smallest and the largest n."""
    values, counts = [rate.value for rate in rates], [rate.n for rate in rates]
    each = f"{counts[0]} each" if len({*counts}) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{min(values):.4f} to {max(values):.4f}, n = {each}"
