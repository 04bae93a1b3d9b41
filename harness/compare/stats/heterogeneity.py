"""Do the scales agree? Welch's F-test of equal ln k over scales, which few seeds do not distort."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.stats.compute_multiplier import errors_by_source, own_variances
from harness.compare.stats.distributions import f_sf
from harness.compare.stats.estimates import Multiplier

LEVEL = 0.1
"""Level below which a pooled multiplier is not printed: the scales have no k in common."""


def heterogeneity_p(multipliers: Sequence[Multiplier]) -> float | None:
    """Return the p of equal ln k at all scales (Welch 1951); None below two scales with an interval.

    w = 1 / SE^2 without the slope error that cancels between scales, F = sum w (lk - m)^2 / (S-1) /
    (1 + 2 (S-2) / (S^2-1) L) with L = sum (1 - w/W)^2 / df, on S-1 and (S^2-1) / (3 L) df. Cochran's Q, which
    takes the variances for known, rejects .15 to .5 of equal scales at two or three seeds.
    """
    usable = [m for m in multipliers if m.log_k is not None and m.log_se and m.df]
    if len(usable) < 2:
        return None
    errors_SR = errors_by_source(usable)
    variances = own_variances(usable) + ((errors_SR - errors_SR.mean(axis=0)) ** 2).sum(axis=1)
    if not (variances > 0).all():
        return None
    S, w = len(usable), 1 / variances
    log_k = np.array([m.log_k for m in usable], float)
    df = np.array([m.df for m in usable], float)
    mean = float(w @ log_k / w.sum())
    L = float(((1 - w / w.sum()) ** 2 / df).sum())
    F = float((w * (log_k - mean) ** 2).sum()) / (S - 1) / (1 + 2 * (S - 2) / (S**2 - 1) * L)
    return f_sf(F, S - 1, (S**2 - 1) / (3 * L))
