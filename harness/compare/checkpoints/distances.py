"""How far two checkpoints are apart, by weights, by what they say and along their runs, from plain arrays."""

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
    FunctionRow,
    KindRow,
    LossRow,
    OneSided,
    Onset,
    StepDistance,
    WeightRow,
    Weights,
)
from harness.compare.stats.estimates import Effect, Estimand
from harness.compare.stats.paired_effects import effect_of, with_interval

TOLERANCE = 1e-6
"""A relative difference that is more than rounding of the last bits of float32."""
BLOCK = 2**22
"""Logits that are turned into float64 at a time."""


def compare_weights(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Weights:
    """Weights by canonical path, each side in its own order. Raises nothing: what does not fit is listed."""
    shared = [path for path in a if path in b and a[path].shape == b[path].shape]
    sums = {path: _Sums.of(a[path], b[path]) for path in shared}
    rows = tuple(WeightRow(path, a[path].shape, sums[path].distance) for path in shared)
    one_sided = tuple(
        OneSided(path, a[path].shape if path in a else None, b[path].shape if path in b else None)
        for path in [*a, *(path for path in b if path not in a)]
        if path not in sums
    )
    return Weights(_pooled(sums.values()), tuple(_kinds(rows, sums)), rows, one_sided)


def kind(path: str) -> str:
    """`layers.3.attention.query` as `layers.*.attention.query`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def compare_tokens(logits_a_NV: np.ndarray, logits_b_NV: np.ndarray) -> Float[np.ndarray, "N 3"]:
    """By token: KL(a || b) and KL(b || a) in nats, and 1 where both rank the same token first, else 0.

    In float64. A token with a logit that is not finite has no number: NaN.
    """
    rows = max(1, BLOCK // logits_a_NV.shape[-1])
    blocks = [slice(start, start + rows) for start in range(0, len(logits_a_NV), rows)]
    return np.concatenate([_token_block(logits_a_NV[block], logits_b_NV[block]) for block in blocks])


def function_row(domain: str, sequences: int, tokens_N3: Float[np.ndarray, "N 3"]) -> FunctionRow:
    """The mean of `compare_tokens` over a domain's probe."""
    kl_ab, kl_ba, agreement = map(float, tokens_N3.mean(axis=0))
    return FunctionRow(domain, sequences, len(tokens_N3), kl_ab, kl_ba, agreement)


def loss_row(domain: str, a_N: ArrayLike, b_N: ArrayLike) -> LossRow:
    """Paired difference of the losses by example, with a t interval over examples."""
    a, b = np.asarray(a_N, float), np.asarray(b_N, float)
    deltas = b - a
    delta = _over_examples(effect_of(deltas))
    better = float(np.mean(deltas < 0))
    return LossRow(domain, len(a), float(a.mean()), float(b.mean()), delta, better, tuple(deltas.tolist()))


def over_domains(rows: Sequence[LossRow]) -> LossRow:
    """The mean over domains, each counted once.

    The domains are given and the examples drawn within each: the variance is that of a stratified
    mean, sum v_d / n_d over D^2, with Satterthwaite's df (Satterthwaite 1946).
    """
    share = 1 / len(rows)
    n = sum(row.examples for row in rows)
    loss_a, loss_b = (
        share * sum(losses) for losses in zip(*((r.loss_a, r.loss_b) for r in rows), strict=True)
    )
    better = share * sum(row.better for row in rows)
    return LossRow("all", n, loss_a, loss_b, _stratified(rows, n), better, ())


def onset(
    steps_a: Int[np.ndarray, " A"], a: np.ndarray, steps_b: Int[np.ndarray, " B"], b: np.ndarray
) -> Onset:
    """Where the values of two runs part. `a`, `b`: float64, one a step."""
    steps, at_a, at_b = np.intersect1d(steps_a, steps_b, return_indices=True)
    a, b = np.ascontiguousarray(a[at_a], float), np.ascontiguousarray(b[at_b], float)
    differs = a.view(np.int64) != b.view(np.int64)
    # Negated, so that a loss that is no number counts as far away from one that is.
    apart = differs & ~(np.abs(b - a) <= TOLERANCE * np.maximum(np.abs(a), np.abs(b)))
    return _onset(steps.tolist(), differs.tolist(), apart.tolist())


def onset_of_weights(distances: Sequence[StepDistance]) -> Onset:
    """The same for weights at checkpoints of equal step."""
    differs = [not each.distance.equal for each in distances]
    apart = [differ and _far(each.distance) for differ, each in zip(differs, distances, strict=True)]
    return _onset([each.step for each in distances], differs, apart)


def _far(found: Distance) -> bool:
    """Weights that are no numbers, or that left zero, are far away."""
    return found.relative is None or not found.relative <= TOLERANCE


@dataclass(frozen=True)
class _Sums:
    """What distances are made of, which adds up over parameters."""

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
        norm_a, norm_b, apart = math.sqrt(self.aa), math.sqrt(self.bb), math.sqrt(self.dd)
        relative = apart / norm_a if norm_a else None if apart else 0.0
        cosine = float(np.clip(self.ab / (norm_a * norm_b), -1, 1)) if norm_a and norm_b else None
        if self.equal and cosine is not None:
            cosine = 1.0  # rounding could leave it a bit below
        return Distance(self.count, norm_a, norm_b, relative, cosine, self.equal)


def _pooled(parts: Collection[_Sums]) -> Distance:
    added = (sum(getattr(part, name) for part in parts) for name in ("count", "aa", "bb", "ab", "dd"))
    return _Sums(*added, equal=all(part.equal for part in parts)).distance


def _kinds(rows: Sequence[WeightRow], sums: Mapping[str, _Sums]) -> Iterator[KindRow]:
    """In the order in which the first layer has them."""
    groups: dict[str, list[WeightRow]] = {}
    for row in rows:
        groups.setdefault(kind(row.path), []).append(row)
    for name, members in groups.items():
        known = [row.distance.relative for row in members if row.distance.relative is not None]
        pooled = _pooled([sums[row.path] for row in members])
        yield KindRow(name, len(members), pooled, min(known, default=None), max(known, default=None))


def _token_block(logits_a_NV: np.ndarray, logits_b_NV: np.ndarray) -> np.ndarray:
    a, b = _log_softmax(logits_a_NV), _log_softmax(logits_b_NV)
    kl_ab, kl_ba = (np.exp(a) * (a - b)).sum(axis=1), (np.exp(b) * (b - a)).sum(axis=1)
    same = np.where(np.isfinite(kl_ab), a.argmax(axis=1) == b.argmax(axis=1), np.nan)
    # Never below zero (Gibbs); rounding could take it there by 1e-16.
    return np.stack([np.maximum(kl_ab, 0), np.maximum(kl_ba, 0), same], axis=1)


def _log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted = logits_NV.astype(float) - logits_NV.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _over_examples(effect: Effect) -> Effect:
    """An effect over examples: no p, and none of the flags, which are about seeds."""
    method = "t over examples" if effect.low is not None else "mean over examples"
    return dataclasses.replace(effect, p=None, method=method, flags=(), estimand=Estimand.trajectory_only)


def _stratified(rows: Sequence[LossRow], n: int) -> Effect:
    means = [row.delta.mean for row in rows if row.delta.mean is not None]
    errors = [row.delta.se for row in rows if row.delta.se is not None]
    mean = sum(means) / len(means) if len(means) == len(rows) else None
    if mean is None or len(errors) < len(rows):
        return _over_examples(Effect(mean, None, None, None, n, None, ""))
    variances = [error**2 for error in errors]
    total = sum(variances)
    if not total:
        return _over_examples(Effect(mean, mean, mean, None, n, None, "", se=0.0))
    df = total**2 / sum(v**2 / (row.examples - 1) for v, row in zip(variances, rows, strict=True))
    return _over_examples(with_interval(mean, math.sqrt(total) / len(rows), n, df, ""))


def _onset(steps: Sequence[int], differs: Sequence[bool], apart: Sequence[bool]) -> Onset:
    def first(marks: Sequence[bool]) -> int | None:
        return next((step for step, mark in zip(steps, marks, strict=True) if mark), None)

    ends = (steps[0], steps[-1]) if steps else (None, None)
    return Onset(len(steps), *ends, first(differs), first(apart))
