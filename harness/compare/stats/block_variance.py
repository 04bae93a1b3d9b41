"""Loss difference at one scale with the variance of all arms that share its seeds.

With two or more treatments on the same seeds, every arm tells something about the seed noise. The residuals
of a two-way table (arm + seed) have (V-1)(n-1) degrees of freedom, where a pair alone has n-1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.compare.stats.distributions import f_sf
from harness.compare.stats.estimates import Effect
from harness.compare.stats.paired_effects import effect_with_interval

NOISIER_LEVEL = 0.1
"""Level of the F-test that finds an arm noisier than the others."""


@dataclass(frozen=True)
class SeedBlock:
    """Losses of all arms of one scale by seed: [arm, seed], NaN where a run is missing."""

    arms: tuple[str, ...]
    losses_VN: np.ndarray

    @property
    def is_complete(self) -> bool:
        """True if no run is missing."""
        return bool(np.isfinite(self.losses_VN).all())


def seed_block(losses: Mapping[str, Mapping[int, float]]) -> SeedBlock | None:
    """Return the block of arms by name, each with its loss by seed. None unless three arms share two seeds
    with the others. Seeds of one arm alone are left out."""
    counts: dict[int, int] = {}
    for by_seed in losses.values():
        for seed, loss in by_seed.items():
            counts[seed] = counts.get(seed, 0) + math.isfinite(loss)
    seeds = sorted(seed for seed, count in counts.items() if count > 1)
    table = {arm: [by_seed.get(seed, math.nan) for seed in seeds] for arm, by_seed in losses.items()}
    arms = tuple(arm for arm, row in table.items() if np.isfinite(row).sum() > 1)
    if len(arms) < 3 or len(seeds) < 2:
        return None
    return SeedBlock(arms, np.array([table[arm] for arm in arms], float))


def block_effect(block: SeedBlock, control: str, treatment: str, *, level: float = 0.95) -> Effect | None:
    """Return the mean difference treatment - control with the block's variance: 2 s^2 / n on (V-1)(n-1) df
    where no run is missing, otherwise by two-way least squares. None if the block cannot carry it: an arm is
    missing, is noisier than the others (`noisier_arms`), or no degree of freedom is left."""
    if not {control, treatment} <= {*block.arms} or {control, treatment} & {*noisier_arms(block)}:
        return None
    fit = _fit_two_way(block.losses_VN)
    if fit is None or not fit.df:
        return None
    contrast = np.zeros(len(block.arms))
    contrast[block.arms.index(treatment)], contrast[block.arms.index(control)] = 1.0, -1.0
    mean = float(contrast @ fit.arm_means_V)
    se = math.sqrt(float(contrast @ fit.unscaled_covariance_VV @ contrast) * fit.variance)
    rows = block.losses_VN[[block.arms.index(control), block.arms.index(treatment)]]
    n = int(np.isfinite(rows).all(axis=0).sum())
    if n < 2 or se <= 1e-12 * float(np.nanmax(np.abs(block.losses_VN))):
        return None
    return effect_with_interval(mean, se, n, fit.df, f"block t of {len(block.arms)} arms", (), level)


def noisier_arms(block: SeedBlock) -> tuple[str, ...]:
    """Return the arms whose variance against the mean of the others is larger than theirs allows: an F-test
    at NOISIER_LEVEL on n-1 and (V-2)(n-1) df, over the seeds that all arms have."""
    complete_VN = block.losses_VN[:, np.isfinite(block.losses_VN).all(axis=0)]
    V, n = complete_VN.shape
    if V < 3 or n < 2:
        return ()
    noisier = []
    for index, arm in enumerate(block.arms):
        other_losses = np.delete(complete_VN, index, axis=0)
        own_variance = float((complete_VN[index] - other_losses.mean(axis=0)).var(ddof=1)) * (V - 1) / V
        residuals = _residuals(other_losses)
        rest_df = (V - 2) * (n - 1)
        rest_variance = float((residuals**2).sum()) / rest_df
        if rest_variance > 0 and f_sf(own_variance / rest_variance, n - 1, rest_df) < NOISIER_LEVEL:
            noisier.append(arm)
    return tuple(noisier)


@dataclass(frozen=True)
class _TwoWayFit:
    arm_means_V: np.ndarray
    unscaled_covariance_VV: np.ndarray
    """Covariance of the arms' means over the residual variance, up to what contrasts do not see."""
    variance: float
    df: int


def _fit_two_way(losses_VN: np.ndarray) -> _TwoWayFit | None:
    """Fit loss = arm + seed by least squares over the runs that there are."""
    V, N = losses_VN.shape
    arms, seeds = np.nonzero(np.isfinite(losses_VN))
    design = np.zeros((arms.size, V + N))
    design[np.arange(arms.size), arms] = 1.0
    design[np.arange(arms.size), V + seeds] = 1.0
    y = losses_VN[arms, seeds]
    centre = float(y.mean())
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ (y - centre)
    residuals = y - centre - design @ coefficients
    df = arms.size - int(np.linalg.matrix_rank(design))
    if df < 1:
        return None
    return _TwoWayFit(coefficients[:V] + centre, inverse[:V, :V], float(residuals @ residuals) / df, df)


def _residuals(losses_VN: np.ndarray) -> np.ndarray:
    """Return the residuals of a complete two-way table."""
    rows, columns = losses_VN.mean(axis=1, keepdims=True), losses_VN.mean(axis=0, keepdims=True)
    return losses_VN - rows - columns + losses_VN.mean()
