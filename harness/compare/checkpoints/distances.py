"""Distances between two checkpoints, from plain arrays: of weights, of predictions and along their runs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from harness.compare.checkpoints.diff_types import (
    Distance,
    DivergencePoint,
    LossRow,
    ParamGroupRow,
    PredictionRow,
    StepDistance,
    UnmatchedParam,
    WeightDiff,
    WeightRow,
)
from harness.compare.stats.estimates import Effect, Estimand
from harness.compare.stats.paired_effects import effect_from_deltas, effect_with_interval

TOLERANCE = 1e-6
"""Relative difference above float32 rounding."""
LOGITS_PER_BLOCK = 2**22
"""Number of logits converted to float64 at a time."""


def compare_weights(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> WeightDiff:
    """Compare weights by canonical path. Parameters that do not match are listed; nothing raises."""
    paths = [path for path in a if path in b and a[path].shape == b[path].shape]
    sums = {path: _Sums.of(a[path], b[path]) for path in paths}
    rows = tuple(WeightRow(path, a[path].shape, sums[path].distance) for path in paths)
    unmatched_params = tuple(
        UnmatchedParam(path, a[path].shape if path in a else None, b[path].shape if path in b else None)
        for path in [*a, *(path for path in b if path not in a)]
        if path not in sums
    )
    return WeightDiff(_pool(sums.values()), tuple(_group_rows(rows, sums)), rows, unmatched_params)


def param_group(path: str) -> str:
    """Replace layer numbers by *: `layers.3.attention.query` -> `layers.*.attention.query`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def compare_tokens(logits_a_NV: np.ndarray, logits_b_NV: np.ndarray) -> Float[np.ndarray, "N 3"]:
    """Compute, per token, KL(a || b) and KL(b || a) in nats, and 1 if both rank the same token first, else 0.

    Computed in float64. A token with a logit that is not finite gets NaN.
    """
    rows = max(1, LOGITS_PER_BLOCK // logits_a_NV.shape[-1])
    blocks = [slice(start, start + rows) for start in range(0, len(logits_a_NV), rows)]
    return np.concatenate([_compare_block(logits_a_NV[block], logits_b_NV[block]) for block in blocks])


def prediction_row(domain: str, sequences: int, tokens_N3: Float[np.ndarray, "N 3"]) -> PredictionRow:
    """Average the result of `compare_tokens` over the probe tokens of a domain."""
    kl_ab, kl_ba, agreement = map(float, tokens_N3.mean(axis=0))
    return PredictionRow(domain, sequences, len(tokens_N3), kl_ab, kl_ba, agreement)


def loss_row(domain: str, a_N: ArrayLike, b_N: ArrayLike) -> LossRow:
    """Compute the paired loss difference per example, with a t interval over examples."""
    a, b = np.asarray(a_N, float), np.asarray(b_N, float)
    deltas = b - a
    delta = _as_example_effect(effect_from_deltas(deltas))
    better = float(np.mean(deltas < 0))
    return LossRow(domain, len(a), float(a.mean()), float(b.mean()), delta, better, tuple(deltas.tolist()))


def mean_over_domains(rows: Sequence[LossRow]) -> LossRow:
    """Average over domains, with equal weights.

    The domains are fixed and examples are sampled within each, so the variance is that of a stratified
    mean, sum v_d / n_d over D^2, with Satterthwaite's df (Satterthwaite 1946).
    """
    share = 1 / len(rows)
    n = sum(row.examples for row in rows)
    loss_a, loss_b = share * sum(row.loss_a for row in rows), share * sum(row.loss_b for row in rows)
    better = share * sum(row.better for row in rows)
    return LossRow("all", n, loss_a, loss_b, _stratified_effect(rows, n), better, ())


def divergence_point(
    steps_a: Int[np.ndarray, " A"], a: np.ndarray, steps_b: Int[np.ndarray, " B"], b: np.ndarray
) -> DivergencePoint:
    """Find the steps at which two runs first differ. `a`, `b`: float64 values, one per step."""
    steps, at_a, at_b = np.intersect1d(steps_a, steps_b, return_indices=True)
    a, b = np.ascontiguousarray(a[at_a], float), np.ascontiguousarray(b[at_b], float)
    differs = a.view(np.int64) != b.view(np.int64)
    # Negated, so that NaN against a number counts as exceeding the tolerance.
    exceeds = differs & ~(np.abs(b - a) <= TOLERANCE * np.maximum(np.abs(a), np.abs(b)))
    return _point(steps.tolist(), differs.tolist(), exceeds.tolist())


def weight_divergence_point(distances: Sequence[StepDistance]) -> DivergencePoint:
    """Find the steps at which the weights of two runs first differ, from checkpoints of equal step."""
    differs = [not row.distance.equal for row in distances]
    # None (weights that were zero on one side) and NaN are not near.
    near = [(r := row.distance.relative) is not None and r <= TOLERANCE for row in distances]
    exceeds = [differ and not close for differ, close in zip(differs, near, strict=True)]
    return _point([row.step for row in distances], differs, exceeds)


@dataclass(frozen=True)
class _Sums:
    """Inner products that distances are computed from; they add up over parameters."""

    count: int
    aa: float
    bb: float
    ab: float
    dd: float
    equal: bool

    @staticmethod
    def of(a: np.ndarray, b: np.ndarray) -> _Sums:
        equal = a.tobytes() == b.tobytes()
        x, y = a.astype(float).ravel(), b.astype(float).ravel()
        d = y - x
        return _Sums(a.size, float(x @ x), float(y @ y), float(x @ y), float(d @ d), equal)

    @property
    def distance(self) -> Distance:
        norm_a, norm_b, norm_diff = math.sqrt(self.aa), math.sqrt(self.bb), math.sqrt(self.dd)
        relative = norm_diff / norm_a if norm_a else None if norm_diff else 0.0
        cosine = float(np.clip(self.ab / (norm_a * norm_b), -1, 1)) if norm_a and norm_b else None
        if self.equal and cosine is not None:
            cosine = 1.0  # rounding could leave it a bit below
        return Distance(self.count, norm_a, norm_b, relative, cosine, self.equal)


def _pool(parts: Collection[_Sums]) -> Distance:
    added = (sum(getattr(part, name) for part in parts) for name in ("count", "aa", "bb", "ab", "dd"))
    return _Sums(*added, equal=all(part.equal for part in parts)).distance


def _group_rows(rows: Sequence[WeightRow], sums: Mapping[str, _Sums]) -> Iterator[ParamGroupRow]:
    """Yield one row per parameter group, in the order of the first layer."""
    groups: dict[str, list[WeightRow]] = {}
    for row in rows:
        groups.setdefault(param_group(row.path), []).append(row)
    for name, members in groups.items():
        relatives = [row.distance.relative for row in members if row.distance.relative is not None]
        low, high = min(relatives, default=None), max(relatives, default=None)
        yield ParamGroupRow(name, len(members), _pool([sums[row.path] for row in members]), low, high)


def _compare_block(logits_a_NV: np.ndarray, logits_b_NV: np.ndarray) -> np.ndarray:
    a, b = _log_softmax(logits_a_NV), _log_softmax(logits_b_NV)
    kl_ab, kl_ba = (np.exp(a) * (a - b)).sum(axis=1), (np.exp(b) * (b - a)).sum(axis=1)
    same_first = np.where(np.isfinite(kl_ab), a.argmax(axis=1) == b.argmax(axis=1), np.nan)
    # Never below zero (Gibbs); rounding could take it there by 1e-16.
    return np.stack([np.maximum(kl_ab, 0), np.maximum(kl_ba, 0), same_first], axis=1)


def _log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted = logits_NV.astype(float) - logits_NV.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _as_example_effect(effect: Effect) -> Effect:
    """Turn an effect over seeds into one over examples: no p-value and no flags, which are about seeds."""
    method = "t over examples" if effect.low is not None else "mean over examples"
    return dataclasses.replace(effect, p=None, method=method, flags=(), estimand=Estimand.trajectory_only)


def _stratified_effect(rows: Sequence[LossRow], n: int) -> Effect:
    means = [row.delta.mean for row in rows if row.delta.mean is not None]
    errors = [row.delta.se for row in rows if row.delta.se is not None]
    mean = sum(means) / len(means) if len(means) == len(rows) else None
    if mean is None or len(errors) < len(rows):
        return _as_example_effect(Effect(mean, None, None, None, n, None, ""))
    variances = [error**2 for error in errors]
    total = sum(variances)
    if not total:
        return _as_example_effect(Effect(mean, mean, mean, None, n, None, "", se=0.0))
    df = total**2 / sum(v**2 / (row.examples - 1) for v, row in zip(variances, rows, strict=True))
    return _as_example_effect(effect_with_interval(mean, math.sqrt(total) / len(rows), n, df, ""))


def _point(steps: Sequence[int], differs: Sequence[bool], exceeds: Sequence[bool]) -> DivergencePoint:
    def first(marks: Sequence[bool]) -> int | None:
        return next((step for step, mark in zip(steps, marks, strict=True) if mark), None)

    ends = (steps[0], steps[-1]) if steps else (None, None)
    return DivergencePoint(len(steps), *ends, first(differs), first(exceeds))
