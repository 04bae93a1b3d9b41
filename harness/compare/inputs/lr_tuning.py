"""Learning-rate tuning: the optimum of a variant's bracket of rates, from its end-of-run losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.inputs.run_records import read_runs
from harness.core.errors import UserError
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import read_config

RateCurve = tuple[tuple[float, float | None], ...]
"""(learning rate, end-of-run loss) by rising rate; the loss is None if the run diverged."""
VERTEX, BEST_POINT = "vertex", "best_point"


@dataclass(frozen=True)
class Optimum:
    """Optimal learning rate of a bracket."""

    learning_rate: float
    loss: float
    """Nats per token: measured at the best point, or the parabola's minimum at its vertex."""
    points: int
    """Number of learning rates whose runs ended, diverged ones included."""
    edge: bool
    """True if the bracket is open on one side: a better rate may lie outside."""
    method: str
    """vertex | best_point"""
    curve: RateCurve


def find_optimum(
    rates: Sequence[float], losses: Sequence[float | None], *, variant: str = "this variant"
) -> Optimum:
    """Return the vertex of the parabola in ln(rate) through the best point and its two neighbours.

    rates: distinct and positive, in any order and spacing; losses: None or not finite for a run that
    diverged. The best point is the lowest of the three, so the vertex lies between the midpoints to its
    neighbours: nothing is extrapolated. If the best point ends the bracket, or a neighbour diverged, that
    point itself is returned. A diverged run above the best point closes the bracket there (larger is worse);
    one below gives no information about smaller rates. Open brackets, and fewer than three finite losses,
    set `edge`. Of equal losses the lower rate counts. Raises UserError if no loss is finite, ValueError for
    rates that do not form a bracket.
    """
    curve = _sorted_curve(rates, losses)
    finite = [(loss, rate) for rate, loss in curve if loss is not None]
    if not finite:
        raise UserError(f"tune=lr: {variant} {_no_finite_loss_message(curve)}")
    loss, rate = min(finite)
    position = curve.index((rate, loss))
    edge = len(finite) < 3 or rate in (min(r for _, r in finite), curve[-1][0])
    neighbours = curve[max(position - 1, 0) : position + 2]
    points = [(math.log(r / rate), value) for r, value in neighbours if value is not None]
    if edge or len(points) < 3:
        return Optimum(rate, loss, len(curve), edge, BEST_POINT, curve)
    x, bottom = _parabola_minimum(*points)
    return Optimum(rate * math.exp(x), bottom, len(curve), edge, VERTEX, curve)


def read_tuning(sweep: SweepDir, domains: Sequence[str]) -> dict[str, Optimum]:
    """Read a tune sweep (`<rate>/<variant>/seed<k>/` below it) and return the optimum of each variant.

    The loss of a run is that of its decayed end, averaged over the rule's domains (all if none are named). A
    run without such a loss is left out of its variant's bracket; the points of two variants then differ,
    which is flagged UNEQUAL_TUNING. Raises UserError if a record is damaged, if a rate was run twice, and if
    a variant has no finite loss.
    """
    brackets: dict[str, dict[float, float | None]] = {}
    for run in read_runs(sweep):
        if run.problem:
            raise UserError(
                f"{sweep.path / run.path}: {run.problem}. Repeat the sweep command, which trains that part "
                "again."
            )
        bracket = brackets.setdefault(run.provenance.variant, {})
        loss = run.decayed_loss(tuple(domains))
        if loss is None and not run.diverged:
            continue
        rate = read_config(RunDir(sweep.path / run.path).config).optimizer.learning_rate
        if rate in bracket:
            raise UserError(
                f"{sweep.path}: {run.provenance.variant} was tuned twice at a learning rate of {rate:g}. "
                "Keep one seed of it."
            )
        bracket[rate] = loss
    return {
        name: find_optimum(list(bracket), list(bracket.values()), variant=name)
        for name, bracket in sorted(brackets.items())
    }


def _sorted_curve(rates: Sequence[float], losses: Sequence[float | None]) -> RateCurve:
    if len(rates) != len(losses):
        raise ValueError(f"find_optimum: {len(rates)} learning rates but {len(losses)} losses")
    if len(set(rates)) < len(rates) or not all(rate > 0 and math.isfinite(rate) for rate in rates):
        raise ValueError("find_optimum: learning rates must be distinct, positive and finite")
    finite_losses = [None if loss is None or not math.isfinite(loss) else float(loss) for loss in losses]
    return tuple(sorted((float(rate), loss) for rate, loss in zip(rates, finite_losses, strict=True)))


def _parabola_minimum(*points: tuple[float, float]) -> tuple[float, float]:
    """Return x and y of the minimum of the parabola through three points.

    The middle point is lower than the left one and no higher than the right one, so the slopes of the two
    chords have opposite signs, and the vertex divides the interval between their midpoints in the ratio of
    these slopes.
    """
    (x0, y0), (x1, y1), (x2, y2) = points
    fall, rise = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    x = (x0 + x1 + (x2 - x0) * fall / (fall - rise)) / 2
    return x, y1 - (rise - fall) / (x2 - x0) * (x - x1) ** 2


def _no_finite_loss_message(curve: RateCurve) -> str:
    if not curve:
        return "has no tuning run that ended with a decayed loss. Repeat the sweep command."
    rates = ", ".join(f"{rate:g}" for rate, _ in curve)
    return f"diverged at every learning rate ({rates}). Lower optimizer.learning_rate."
