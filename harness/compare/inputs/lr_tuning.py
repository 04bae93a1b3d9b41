"""Which learning rate a bracket of them points to: the tuning of one variant, from its end-of-run losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.inputs.run_records import RunRecord, outcome_of, read_runs
from harness.core.errors import UserError
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import read_config

Curve = tuple[tuple[float, float | None], ...]
"""(learning rate, end-of-run loss) from the lowest rate up; None where the run diverged."""
VERTEX, BEST = "vertex", "best_point"


@dataclass(frozen=True)
class Optimum:
    """The learning rate that a bracket points to."""

    learning_rate: float
    loss: float
    """Nats a token: as measured at the best point, the parabola's own at its vertex."""
    points: int
    """Learning rates whose runs ended, diverged ones included."""
    edge: bool
    """The bracket is open on one side: a better rate may lie outside."""
    method: str
    """vertex | best_point"""
    curve: Curve


def find_optimum(
    rates: Sequence[float], losses: Sequence[float | None], *, variant: str = "this variant"
) -> Optimum:
    """The vertex of the parabola in ln(rate) through the best point and its two neighbours.

    rates: distinct, positive, in any order and spacing; losses: None or not finite for a run that
    diverged. The best point is the lowest of its three, so the vertex lies between the midpoints to
    its neighbours and never outside what was tried. Where the best point ends the bracket, or a
    neighbour diverged, that point itself is taken: nothing is extrapolated. A diverged run above the
    best point closes the bracket there (larger is worse); one below says nothing of smaller rates.
    Open brackets, and fewer than three finite losses, are `edge`. Equal losses: the lower rate.
    Raises UserError where no loss is finite, ValueError for rates that are no bracket.
    """
    curve = _curve(rates, losses)
    finite = [(loss, rate) for rate, loss in curve if loss is not None]
    if not finite:
        raise UserError(f"tune=lr: {variant} {_trouble(curve)}")
    loss, rate = min(finite)
    position = curve.index((rate, loss))
    edge = len(finite) < 3 or rate in (min(r for _, r in finite), curve[-1][0])
    around = curve[max(position - 1, 0) : position + 2]
    known = [(math.log(r / rate), value) for r, value in around if value is not None]
    if edge or len(known) < 3:
        return Optimum(rate, loss, len(curve), edge, BEST, curve)
    x, bottom = _vertex(*known)
    return Optimum(rate * math.exp(x), bottom, len(curve), edge, VERTEX, curve)


def read_tuning(sweep: SweepDir, domains: Sequence[str]) -> dict[str, Optimum]:
    """The optimum of each variant over a tune sweep, `<rate>/<variant>/seed<k>/` below it.

    The loss of a run is that of its decayed end, mean over the rule's domains (all if none are named).
    A run that has not ended, or has no such loss, is no point of its variant's bracket: the points of
    two variants then differ, which is flagged UNEQUAL_TUNING. Raises UserError where a config cannot
    be trusted to say its learning rate, where a rate was run twice, and where a variant has no finite
    loss.
    """
    brackets: dict[str, dict[float, float | None]] = {}
    for run in read_runs(sweep):
        bracket = brackets.setdefault(run.provenance.variant, {})
        loss = _loss(run, tuple(domains))
        if loss is None and not run.diverged:
            continue
        rate = read_config(RunDir(sweep.path / run.path).config).optimizer.learning_rate
        if rate in bracket:
            raise UserError(
                f"{sweep.path}: {run.provenance.variant} was tuned twice at a learning rate of {rate:g}; "
                "keep one seed of it"
            )
        bracket[rate] = loss
    return {
        name: find_optimum(list(found), list(found.values()), variant=name)
        for name, found in sorted(brackets.items())
    }


def _curve(rates: Sequence[float], losses: Sequence[float | None]) -> Curve:
    if len(rates) != len(losses):
        raise ValueError(f"find_optimum: {len(rates)} learning rates but {len(losses)} losses")
    if len(set(rates)) < len(rates) or not all(rate > 0 and math.isfinite(rate) for rate in rates):
        raise ValueError("find_optimum: learning rates must be distinct, positive and finite")
    known = [None if loss is None or not math.isfinite(loss) else float(loss) for loss in losses]
    return tuple(sorted((float(rate), loss) for rate, loss in zip(rates, known, strict=True)))


def _vertex(*points: tuple[float, float]) -> tuple[float, float]:
    """Where the parabola through three points is lowest, and how low.

    The middle point is lower than the left one and no higher than the right one, so the slopes of the
    two chords have opposite signs, and the vertex divides the stretch between their midpoints in the
    ratio of these slopes.
    """
    (x0, y0), (x1, y1), (x2, y2) = points
    fall, rise = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    x = (x0 + x1 + (x2 - x0) * fall / (fall - rise)) / 2
    return x, y1 - (rise - fall) / (x2 - x0) * (x - x1) ** 2


def _loss(run: RunRecord, domains: tuple[str, ...]) -> float | None:
    """The finite loss of a decayed end."""
    outcome = outcome_of(run.evals, domains) if run.complete and not run.diverged else None
    return outcome.loss if outcome and outcome.decayed else None


def _trouble(curve: Curve) -> str:
    if not curve:
        return "has no tuning run that ended with a decayed loss; repeat the sweep command"
    rates = ", ".join(f"{rate:g}" for rate, _ in curve)
    return f"diverged at every learning rate ({rates}); lower optimizer.learning_rate"
