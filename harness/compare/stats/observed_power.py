"""Power of a design after its runs: the noise of the pairs against the noise that the design counted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.stats.distributions import t_power
from harness.compare.stats.paired_effects import NoiseFloor
from harness.compare.stats.power import plan_power

MAX_SEEDS = 1000
"""Largest number of seeds a scale that is named as enough."""


@dataclass(frozen=True)
class ObservedPower:
    """Planned and observed noise of one scale, and the smallest effects that its test detects at each, in the
    unit of the loss. An effect is detected with probability `chance`."""

    scale: str
    seeds: int
    planned_sd: float
    """SD of a pair's difference that the design counted on."""
    assumed: bool
    """True if `planned_sd` is an assumption, because no A/A library covers this scale."""
    observed_sd: float
    """SD of a pair's difference, pooled over the treatments."""
    df: int
    """Degrees of freedom of `observed_sd`."""
    planned_effect: float
    observed_effect: float
    seeds_needed: int | None
    """Seeds with which `planned_effect` is detected at the observed noise; None above MAX_SEEDS."""
    chance: float


def observe_power(
    deltas: Mapping[str, Sequence[np.ndarray]],
    *,
    treatments: int,
    floors: Mapping[str, NoiseFloor],
    alpha: float,
) -> tuple[ObservedPower, ...]:
    """Return the power of each scale with at least two pairs that differ. `deltas`: by scale the loss
    differences of each treatment's pairs. `floors`: A/A libraries that the design counted on, by scale."""
    seeds = {scale: max((len(group) for group in groups), default=0) for scale, groups in deltas.items()}
    plan = plan_power(
        {scale: n for scale, n in seeds.items() if n}, treatments=treatments, floors=floors, alpha=alpha
    )
    level = plan.level / max(len(plan.rungs), 1)
    rows = []
    for rung in plan.rungs:
        sd, df = _pooled_sd(deltas[rung.scale])
        if not sd or rung.detectable is None:
            continue
        enough = _seeds_needed(rung.detectable / sd, level, plan.chance)
        effect = rung.detectable * sd / rung.sd
        rows.append(
            ObservedPower(
                *(rung.scale, rung.seeds, rung.sd, rung.assumed, sd, df),
                *(rung.detectable, effect, enough, plan.chance),
            )
        )
    return tuple(rows)


def _pooled_sd(groups: Sequence[np.ndarray]) -> tuple[float, int]:
    """Return the SD within the groups, and its degrees of freedom; (0, 0) without two finite values."""
    finite = [group[np.isfinite(group)] for group in groups]
    squares = sum(float(np.sum((group - group.mean()) ** 2)) for group in finite if len(group) > 1)
    df = sum(len(group) - 1 for group in finite if len(group) > 1)
    return (math.sqrt(squares / df), df) if df else (0.0, 0)


def _seeds_needed(effect: float, level: float, chance: float) -> int | None:
    """Return the fewest pairs, two or more, with which a t-test at `level` detects an effect given in SD."""

    def is_enough(pairs: int) -> bool:
        return t_power(effect * math.sqrt(pairs), pairs - 1, 1 - level) >= chance

    high = 2
    while not is_enough(high):  # upwards: far above the threshold the tail is not computable
        if high >= MAX_SEEDS:
            return None
        high = min(2 * high, MAX_SEEDS)
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
