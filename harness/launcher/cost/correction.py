"""How wrong earlier predictions of a step were, and what that makes of later ones. Pure.

Runs that were placed together were predicted from the same rates, so they err together: a launch counts as
one, whatever its runs. What is fitted is the raw prediction, never one that was corrected before.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from harness.compare.stats.distributions import clopper_pearson
from harness.launcher.cost.prediction_log import Prediction
from harness.launcher.cost.step_cost import RunEstimate

COVERAGE = 0.9
"""Of an interval."""
MIN_LAUNCHES = 9
"""Launches below which nothing is corrected: the worst of n that were seen bounds the next one with
probability n / (n + 1) and no more."""
MAX_LAUNCHES = 30
"""Launches that count: what the predictor has learned since makes older ones too pessimistic."""


@dataclass(frozen=True)
class Correction:
    """A raw prediction times `factor` is the prediction, and COVERAGE of runs lie within exp(`spread`) of
    it either way."""

    factor: float
    spread: float
    launches: int


@dataclass(frozen=True)
class Accuracy:
    """Of the predictions for one kind of machine that rest on one kind of evidence. Each launch has the same
    weight in all but `worst`."""

    machine: str
    evidence: str
    runs: int
    launches: int
    median: float
    """Of |said / measured - 1|."""
    worst: float
    inside: float
    """Share of runs whose step was within the interval that was said."""
    inside_low: float
    inside_high: float
    """95 % (Clopper and Pearson), with each launch a single trial."""
    factor: float
    """Median of measured / raw."""
    now: Correction | None
    """What a plan uses; None: raw predictions."""


def fit_correction(comparable: Sequence[Prediction]) -> Correction | None:
    """From predictions for one kind of machine with one kind of evidence, oldest first; None where these are
    of fewer than FEWEST launches.

    The spread is the quantile of hierarchical conformal prediction (Lee, Barber, Willett 2023,
    arXiv:2306.06342) over |ln(measured / raw) - centre|, the centre that of the other launches: with one run
    a launch the k-th smallest of n, k = ceil((n + 1) COVERAGE).
    """
    names = [*dict.fromkeys(each.launch for each in reversed(comparable))][:MAX_LAUNCHES]
    if len(names) < MIN_LAUNCHES:
        return None
    recent = [each for each in comparable if each.launch in names]
    ratios, weights = _log_ratios(recent), _weights(recent)
    launches = np.array([each.launch for each in recent])
    away = np.empty(len(recent))
    for name in names:
        own = launches == name
        away[own] = np.abs(ratios[own] - _median(ratios[~own], weights[~own]))
    unseen = np.append(away, np.inf), np.append(weights, 1.0)
    spread = _quantile(*unseen, COVERAGE)
    return Correction(math.exp(_median(ratios, weights)), spread, len(names))


def fit_corrections(predictions: Iterable[Prediction], machine: str) -> dict[str, Correction]:
    """By evidence, for one kind of machine."""
    own = accuracy_by_evidence(each for each in predictions if each.machine == machine)
    return {each.evidence: each.now for each in own if each.now}


def apply_correction(estimate: RunEstimate, known: Mapping[str, Correction]) -> RunEstimate:
    """With its steps as long as earlier ones were found to be, and an interval that is nowhere narrower, as
    a factor, than its own."""
    correction = known.get(estimate.evidence)
    if correction is None:
        return estimate
    longer = dataclasses.replace(estimate, train=estimate.train * correction.factor, factor=correction.factor)
    wide = math.exp(correction.spread)
    low = longer.seconds / max(wide, estimate.seconds / estimate.low)
    high = longer.seconds * max(wide, estimate.high / estimate.seconds)
    return dataclasses.replace(longer, low=low, high=high)


def accuracy_by_evidence(predictions: Iterable[Prediction]) -> list[Accuracy]:
    """By kind of machine, and by evidence. `predictions`: oldest first."""

    def comparable(each: Prediction) -> tuple[str, str]:
        return each.machine, each.evidence

    by_kind = groupby(sorted(predictions, key=comparable), comparable)
    return [_accuracy(*kind, [*members]) for kind, members in by_kind]


def _accuracy(machine: str, evidence: str, members: Sequence[Prediction]) -> Accuracy:
    weights = _weights(members)
    launches = len({each.launch for each in members})
    errors = np.array([abs(each.predicted / each.measured - 1) for each in members])
    inside = np.array([each.low <= each.measured <= each.high for each in members])
    share = float(np.average(inside, weights=weights))
    low, high = clopper_pearson(share * launches, launches)
    return Accuracy(
        machine=machine,
        evidence=evidence,
        runs=len(members),
        launches=launches,
        median=_median(errors, weights),
        worst=float(errors.max()),
        inside=share,
        inside_low=low,
        inside_high=high,
        factor=math.exp(_median(_log_ratios(members), weights)),
        now=fit_correction(members),
    )


def _log_ratios(members: Sequence[Prediction]) -> np.ndarray:
    return np.log([each.measured / each.raw for each in members])


def _weights(members: Sequence[Prediction]) -> np.ndarray:
    """1 for each launch, shared by its runs."""
    runs = Counter(each.launch for each in members)
    return np.array([1 / runs[each.launch] for each in members])


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """Halfway between the two where the weights are cut in half between them."""
    return (_quantile(values, weights, 0.5) - _quantile(-values, weights, 0.5)) / 2


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value that at least this share is not above; weights that are not exact may miss it by a
    rounding error."""
    return float(np.quantile(values, share - 1e-9, weights=weights, method="inverted_cdf"))
