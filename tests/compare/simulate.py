"""The acceptance table by simulation: each function draws many sweeps of known truth and returns what
was achieved. Small counts run in `make test`, full ones in `make test-statistics`.

The generator is the one that the table names: L = 1.82 + 482/N^.348 + 2085/(k D f)^.366, batch noise
of SD .03 a step (shared by a matched pair), AR(1) .6 noise of a run's own (SD .0005 here), and a run
effect of SD .0011 at the end, 9 times that at the start, correlated .25 inside a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.noise_floor import noise_floor
from harness.compare.stats.compute_multiplier import compute_multiplier, pooled_multiplier
from harness.compare.stats.control_slope import fit_ladder, horizon_slope
from harness.compare.stats.distributions import clopper_pearson
from harness.compare.stats.estimates import Direction, Effect, Multiplier
from harness.compare.stats.multiple_testing import holm
from harness.compare.stats.paired_effects import (
    NoiseFloor,
    effect_from_deltas,
    paired_effect,
    variance_mismatch,
    welch_effect,
)
from harness.compare.stats.scale_trend import trend
from harness.compare.stats.sequential import (
    LookOutcome,
    SequentialTest,
    alpha_spending,
    log_e_values,
    sequential_p,
)
from tests.compare.synthetic import surface

SCALES = (10**7, 3 * 10**7, 10**8, 3 * 10**8)
REFERENCE = 10**8
RUN_SD, BATCH_SD, OWN_SD, AR, RHO = 0.0011, 0.03, 0.0005, 0.6, 0.25


@dataclass(frozen=True)
class Rate:
    """A share of hits with its Monte Carlo error."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    def within(self, limit: float) -> bool:
        """At most the limit plus 3 Monte Carlo standard errors."""
        return self.value <= limit + 3 * math.sqrt(limit * (1 - limit) / self.n)

    def __str__(self) -> str:
        low, high = clopper_pearson(self.hits, self.n)
        return f"{self.value:.4f} [{low:.4f}, {high:.4f}], n = {self.n}"


def losses(
    rng, n: int, params: int, k: float, shares: np.ndarray, *, matched: bool = True, sd: float = RUN_SD
) -> tuple[np.ndarray, np.ndarray]:
    """Control's and treatment's losses at each share: two arrays (n pairs, shares)."""
    tokens, width = 20 * params, len(shares)
    batch = BATCH_SD * rng.normal(size=(2, n, width))
    common = rng.normal(size=(n, 1))
    arms = []
    for arm, multiplier in enumerate((1.0, k)):
        effect = sd * (RHO**0.5 * common + (1 - RHO) ** 0.5 * rng.normal(size=(n, 1)))
        noise = batch[0 if matched else arm] + effect * (9 - 8 * shares) + _ar(rng, n, width)
        arms.append(surface(params, tokens * shares, multiplier) + noise)
    return arms[0], arms[1]


def _ar(rng, n: int, width: int) -> np.ndarray:
    """Stationary AR(1) noise of a run's own."""
    shocks = rng.normal(size=(n, width)) * math.sqrt(1 - AR**2)
    shocks[:, 0] = rng.normal(size=n)
    for column in range(1, width):
        shocks[:, column] += AR * shocks[:, column - 1]
    return OWN_SD * shocks


END = np.array([1.0])


def ends(rng, n: int, params: int, k: float, **options) -> tuple[np.ndarray, np.ndarray]:
    a, b = losses(rng, n, params, k, END, **options)
    return a[:, 0], b[:, 0]


def truth(params: int, k: float) -> float:
    return surface(params, 20 * params, k) - surface(params, 20 * params)


def floor_of(rng, orders: int, seeds: int = 4, sd: float = RUN_SD) -> NoiseFloor:
    """An A/A library of one scale: `orders` data orders, each with some parameter seeds.

    Runs of one order correlate as pairs do and share their batch noise.
    """
    common = rng.normal(size=(orders, 1))
    own = rng.normal(size=(orders, seeds))
    runs = sd * (RHO**0.5 * common + (1 - RHO) ** 0.5 * own) + OWN_SD * rng.normal(size=(orders, seeds))
    floor = noise_floor(list(runs))
    assert floor is not None
    return floor


def bounds(estimate: Effect) -> tuple[float, float]:
    """Ends of the interval of an estimate that has one."""
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def coverage(reps: int, n: int, *, orders: int = 0, rng: int = 0) -> Rate:
    """Coverage of the per-scale interval; with `orders` an A/A library of so many data orders."""
    random, target = np.random.default_rng(rng), truth(REFERENCE, 1.01)
    hits = 0
    for _ in range(reps):
        floor = floor_of(random, orders) if orders else None
        effect = paired_effect(*ends(random, n, REFERENCE, 1.01), floor=floor)
        low, high = bounds(effect)
        hits += low < target < high
    return Rate(hits, reps)


def power(reps: int, n: int, k: float, *, matched: bool = True, rng: int = 0) -> Rate:
    """Share of p < .05; k = 1 gives the false positives at the end."""
    random = np.random.default_rng(rng)
    test = paired_effect if matched else welch_effect
    p = [test(*ends(random, n, REFERENCE, k, matched=matched)).p for _ in range(reps)]
    return Rate(sum(value < 0.05 for value in p), reps)


def any_look(reps: int, looks: int, n: int = 5, rng: int = 0, *, naive: bool = False) -> Rate:
    """False positives at any look; `naive`: at .05 each, to show what the spending prevents."""
    random, shares = np.random.default_rng(rng), np.linspace(0.4, 1.0, looks)
    hits = 0
    for _ in range(reps):
        a, b = losses(random, n, REFERENCE, 1.0, shares)
        effects = [effect_from_deltas(column) for column in (b - a).T]
        if naive:
            hits += any(effect.p < 0.05 for effect in effects)
        else:
            test = SequentialTest(looks)
            hits += LookOutcome.efficacy in [test.add_look(effect) for effect in effects]
    return Rate(hits, reps)


LOOKS = np.array([0.4, 0.6, 0.8, 1.0])


@dataclass(frozen=True)
class Stopped:
    """Sweeps of one scale without a difference: how often one was called, and how often the interval that
    is shown at the look where it ended held the truth."""

    false_positives: Rate
    intervals: Rate


def stopped_null(reps: int, n: int, rng: int = 0, *, naive: bool = False) -> Stopped:
    """Each scale ends by efficacy or futility or runs to its end, and is then judged by its sequential p;
    `naive`: it ends at the first p below .05, and is judged by that."""
    random, hits, held = np.random.default_rng(rng), 0, 0
    for _ in range(reps):
        seen = scale_by_looks(random, n, 1, 1, naive=naive)[0]
        p = seen[-1].p if naive else sequential_p(seen, len(LOOKS))
        hits += p < 0.05
        low, high = bounds(seen[-1])
        held += low <= 0 <= high
    return Stopped(Rate(hits, reps), Rate(held, reps))


def stopped_family(reps: int, n: int = 5, rng: int = 0) -> Rate:
    """Any Holm-adjusted sequential p < .05 over two treatments at three scales, none of them different."""
    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        scales = [scale_by_looks(random, n, 2, 6) for _ in range(3)]
        p = [sequential_p(seen, len(LOOKS)) for scale in scales for seen in scale]
        hits += min(value for value in holm(p) if value is not None) < 0.05
    return Rate(hits, reps)


def scale_by_looks(
    random, n: int, treatments: int, family: int, *, naive: bool = False
) -> list[list[Effect]]:
    """The effects of each treatment at each look until all of them are decided. All share one control."""
    a, *others = null_arms(random, n, 1 + treatments)
    tests = [SequentialTest(len(LOOKS), family=family) for _ in others]
    for look, share in enumerate(LOOKS):
        level = 1 - alpha_spending(look + 1, len(LOOKS))
        slope = horizon_slope(a[:, look - 1], a[:, look], share / LOOKS[look - 1]) if look else None
        for test, b in zip(tests, others, strict=True):
            delta = effect_from_deltas((b - a)[:, look], level=level)
            test.add_look(delta, compute_multiplier(delta, slope) if slope else None)
        over = [
            test.effects[-1].p < 0.05 if naive else test.outcome is not LookOutcome.proceed for test in tests
        ]
        if all(over):
            break
    return [test.effects for test in tests]


def null_arms(random, n: int, arms: int) -> list[np.ndarray]:
    """Losses (n seeds, looks) of so many equal variants, on the same batches."""
    batch, common = BATCH_SD * random.normal(size=(n, len(LOOKS))), random.normal(size=(n, 1))
    found = []
    for _ in range(arms):
        effect = RUN_SD * (RHO**0.5 * common + (1 - RHO) ** 0.5 * random.normal(size=(n, 1)))
        own = effect * (9 - 8 * LOOKS) + _ar(random, n, len(LOOKS))
        found.append(surface(REFERENCE, 20 * REFERENCE * LOOKS) + batch + own)
    return found


def one_pair_of_steps(reps: int, steps: int = 30, rng: int = 0) -> Rate:
    """A true null rejected by a band over the last evaluations of one pair: why it has no p."""
    from harness.compare.stats.paired_effects import trajectory_band

    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        a, b = losses(random, 1, REFERENCE, 1.0, np.linspace(0.9, 1.0, steps))
        band = trajectory_band((b - a)[0])
        low, high = bounds(band)
        hits += not low <= 0 <= high
    return Rate(hits, reps)


def e_process(reps: int, seeds: int = 30, rng: int = 0) -> Rate:
    """False positives of the e-process at any number of seeds."""
    random = np.random.default_rng(rng)
    values = log_e_values(random.normal(size=(reps, seeds)))
    return Rate(int((values.max(axis=1) >= math.log(20)).sum()), reps)


def multipliers(
    random, n: int, ks: tuple[float, ...], *, floors: list[NoiseFloor] | None = None, noise: float = 1.0
) -> tuple[list[Multiplier], list[Effect], bool]:
    """k_tokens at each scale as `compare` takes it: branch at half, slope from the control's runs."""
    raw = [losses(random, n, N, k, np.array([0.5, 1.0])) for N, k in zip(SCALES, ks, strict=True)]
    deltas = [(b - a)[:, 1] + _extra(random, n, noise) for a, b in raw]
    mismatch = bool(floors) and variance_mismatch(deltas, floors)
    used = [None] * len(SCALES) if mismatch or not floors else floors
    effects = [effect_from_deltas(d, floor=floor) for d, floor in zip(deltas, used, strict=True)]
    slopes = [horizon_slope(a[:, 0], a[:, 1], 2.0) for a, _ in raw]
    return [compute_multiplier(e, s) for e, s in zip(effects, slopes, strict=True)], effects, mismatch


def _extra(random, n: int, noise: float) -> np.ndarray:
    """What makes A/B pairs `noise` times as noisy (SD) as A/A ones."""
    base = RUN_SD * math.sqrt(2 * (1 - RHO))
    return math.sqrt(noise**2 - 1) * base * random.normal(size=n)


@dataclass(frozen=True)
class PooledResult:
    bias: float
    rmse: float
    coverage: Rate
    mismatches: int


def pooled(
    reps: int, k: float = 1.05, n: int = 3, *, library: int = 0, noise: float = 1.0, rng: int = 0
) -> PooledResult:
    """ln k pooled over four scales: bias, RMSE and coverage. `library`: data orders of an A/A library."""
    random, target = np.random.default_rng(rng), math.log(k)
    errors, hits, mismatches = [], 0, 0
    for _ in range(reps):
        floors = [floor_of(random, library) for _ in SCALES] if library else None
        ms, _, mismatch = multipliers(random, n, (k,) * len(SCALES), floors=floors, noise=noise)
        found = pooled_multiplier(ms)
        errors.append(found.log_k - target)
        assert found.log_low is not None
        assert found.log_high is not None
        hits += found.log_low < target < found.log_high
        mismatches += mismatch
    array = np.array(errors)
    return PooledResult(float(array.mean()), float(np.sqrt((array**2).mean())), Rate(hits, reps), mismatches)


def pooled_compute(reps: int, k: float = 1.05, n: int = 3, rng: int = 0) -> PooledResult:
    """The same along the ladder (k_compute), against the k that solves L_A(k C) = L_B(C) at each scale."""
    random = np.random.default_rng(rng)
    targets = np.array([ladder_truth(N, k) for N in SCALES])
    flops = [6.0 * N * 20 * N for N in SCALES]
    errors, hits = [], 0
    for _ in range(reps):
        raw = [ends(random, n, N, k) for N in SCALES]
        means, ses = [a.mean() for a, _ in raw], [a.std(ddof=1) / math.sqrt(n) for a, _ in raw]
        fit = fit_ladder(flops, means, ses)
        ms = [
            compute_multiplier(paired_effect(a, b), slope)
            for (a, b), slope in zip(raw, fit.slopes, strict=True)
        ]
        found = pooled_multiplier(ms)
        weights = np.array([m.slope**2 for m in ms])
        target = float(weights @ targets / weights.sum())
        errors.append(found.log_k - target)
        assert found.log_low is not None
        assert found.log_high is not None
        hits += found.log_low < target < found.log_high
    array = np.array(errors)
    return PooledResult(float(array.mean()), float(np.sqrt((array**2).mean())), Rate(hits, reps), 0)


def ladder_truth(params: int, k: float) -> float:
    """ln of the compute by which the control's ladder (20 tokens a parameter) reaches B's loss."""
    goal = surface(params, 20 * params, k)
    low, high = -3.0, 3.0
    for _ in range(80):
        middle = (low + high) / 2
        size = params * math.exp(middle / 2)
        low, high = (middle, high) if surface(size, 20 * size) > goal else (low, middle)
    return (low + high) / 2


def trends(reps: int, gamma: float, n: int = 5, rng: int = 0) -> Rate:
    """Share of SHRINKS or GROWS when ln k changes by gamma per e-fold of compute."""
    random = np.random.default_rng(rng)
    x = np.log([6.0 * N * 20 * N for N in SCALES])
    ks = tuple(np.exp(0.05 + gamma * (x - x.mean())))
    hits = 0
    for _ in range(reps):
        ms, _, _ = multipliers(random, n, ks)
        found = trend(x, ms)
        hits += found.direction in (Direction.SHRINKS, Direction.GROWS)
    return Rate(hits, reps)


def family_wise(reps: int, n: int = 3, rng: int = 0) -> Rate:
    """Any Holm-adjusted p < .05 over four null scales."""
    random, hits = np.random.default_rng(rng), 0
    for _ in range(reps):
        p = [paired_effect(*ends(random, n, N, 1.0)).p for N in SCALES]
        hits += min(value for value in holm(p) if value is not None) < 0.05
    return Rate(hits, reps)
