"""Power of a design before it runs: the smallest detectable effect, and the smallest p that it can reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.compare.stats.distributions import t_critical, t_power
from harness.compare.stats.multiple_testing import smallest_p
from harness.compare.stats.paired_effects import NoiseFloor

ASSUMED_SD = 0.005
"""SD in nats of a pair's difference without an A/A library. Runs of 1e8 parameters show about .0016, runs of
1e5 to 1e6 parameters several times that."""


@dataclass(frozen=True)
class RungPower:
    """Power at one scale. Effects are in nats per token, and in ln k if a slope is known."""

    scale: str
    seeds: int
    sd: float
    df: float
    assumed: bool
    """True if `sd` is an assumption, because no A/A library covers this scale."""
    detectable: float | None
    detectable_log_k: float | None
    smallest_p: float | None


@dataclass(frozen=True)
class Power:
    """Power of a design. An effect is found with probability `chance` at the Holm-adjusted level."""

    rungs: tuple[RungPower, ...]
    pooled_log_k: float | None
    """Smallest detectable pooled |ln k|; None if a slope is missing."""
    smallest_p: float | None
    """Smallest p that the sign-flip test over all pairs of one treatment can reach."""
    treatments: int
    level: float
    """Level of the first step of Holm's procedure: alpha / treatments."""
    chance: float
    assumption: str
    unit: str = "nats"

    @property
    def sentence(self) -> str:
        """One-paragraph summary for the terminal."""
        parts = []
        for rung in self.rungs:
            effect = (
                f"{rung.detectable:.4f} {self.unit}" if rung.detectable is not None else "nothing (one seed)"
            )
            parts.append(f"{rung.scale}: {effect} with {rung.seeds} seeds")
        pooled = f"; pooled over scales |ln k| {self.pooled_log_k:.3f}" if self.pooled_log_k else ""
        flip = f"; the sign-flip test can reach p {self.smallest_p:.2g} at best" if self.smallest_p else ""
        return f"Detectable with {self.chance:.0%} power: {', '.join(parts)}{pooled}{flip}. {self.assumption}"


def plan_power(
    seeds: Mapping[str, int],
    *,
    treatments: int = 1,
    sd: float | None = None,
    floors: Mapping[str, NoiseFloor] | None = None,
    slopes: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    chance: float = 0.8,
    unit: str = "nats",
) -> Power:
    """Return the smallest effects that a design detects with probability `chance`.

    seeds: pairs by scale. The noise of a pair's difference comes from `floors` (A/A libraries by scale), else
    from `sd` in nats, else from ASSUMED_SD; `assumption` says which. slopes: the control's -dL/dln(tokens) by
    scale, if one may be assumed, converts nats to ln k. Each scale is tested at alpha / (treatments x
    scales), the pool at alpha / treatments, by the noncentral t. unit: name of the loss unit.
    """
    floors, slopes, sd = floors or {}, slopes or {}, ASSUMED_SD if sd is None else sd
    level = alpha / max(treatments, 1)
    rung_level = level / max(len(seeds), 1)
    rungs = tuple(
        _scale_power(scale, n, floors.get(scale), sd, slopes.get(scale), rung_level, chance)
        for scale, n in seeds.items()
    )
    pooled = _pooled_log_k(rungs, slopes, level, chance)
    assumption = _assumption_text(rungs, sd, unit)
    return Power(rungs, pooled, smallest_p(sum(seeds.values())), treatments, level, chance, assumption, unit)


def seeds_needed(scales: int, level: float) -> int:
    """Return the seeds per scale, two or more, with which the sign-flip test of all pairs reaches `level`."""
    return max(2, math.ceil((1 - math.log2(level)) / scales))


def detectable_effect(se: float, df: float, level: float, chance: float) -> float | None:
    """Return the effect that a two-sided t-test at `level` detects with probability `chance`, by bisection on
    the noncentral t. None if df < 1 or se is not positive."""
    if df < 1 or not se > 0:
        return None
    low, high = 0.0, t_critical(df, 1 - level) + 4.0
    while t_power(high, df, 1 - level) < chance:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_power(middle, df, 1 - level) < chance else (low, middle)
    return high * se


def _scale_power(
    scale: str, n: int, floor: NoiseFloor | None, sd: float, slope: float | None, level: float, chance: float
) -> RungPower:
    noise = floor.s0 if floor else sd
    floor_df = floor.df if floor and n in (2, 3) else 0.0
    df = n - 1 + floor_df
    smallest_effect = detectable_effect(noise / math.sqrt(n), df, level, chance) if n > 1 else None
    log_k = smallest_effect / slope if smallest_effect is not None and slope else None
    low = smallest_p(n) if n > 1 else None
    return RungPower(scale, n, noise, df, floor is None, smallest_effect, log_k, low)


def _pooled_log_k(
    rungs: Sequence[RungPower], slopes: Mapping[str, float], level: float, chance: float
) -> float | None:
    """Return the detectable pooled |ln k|. Weights g^2 / sum g^2 give a variance of
    sum g_s^2 sd_s^2 / n_s / (sum g^2)^2, with df by Satterthwaite."""
    if not rungs or any(rung.scale not in slopes or rung.seeds < 2 for rung in rungs):
        return None
    total = sum(slopes[rung.scale] ** 2 for rung in rungs)
    parts = [(slopes[r.scale] * r.sd / total) ** 2 / r.seeds for r in rungs]
    df = sum(parts) ** 2 / sum(part**2 / r.df for part, r in zip(parts, rungs, strict=True))
    return detectable_effect(math.sqrt(sum(parts)), df, level, chance)


def _assumption_text(rungs: Sequence[RungPower], sd: float, unit: str) -> str:
    scales = ", ".join(rung.scale for rung in rungs if rung.assumed)
    if not scales:
        return "The noise of every scale is that of its A/A library (pairs with the same start are quieter)."
    noise = f"a pair's difference has a seed noise of {sd:g} {unit} (SD)"
    later = "small models show several times that, and the verdict says what these pairs showed"
    return f"Assumed, since no A/A library covers {scales}: {noise}; {later}."
