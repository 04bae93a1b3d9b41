"""Grids of learning rates in logs: runs of one variant and scale that differ in their peak rate.

A schedule changes the rate within a run, a grid the peak between runs. Each variant is compared at its own
best rate of the grid.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from harness.compare.inputs.lr_tuning import Optimum, find_optimum
from harness.core.errors import UserError

GRID_RATE = "grid_rate"
"""Column of the peak learning rate of a run whose variant has several at this scale; null elsewhere."""
DIGITS = 3
"""Digits to which two peak rates must agree to count as one."""
MIN_OVERLAP = 0.5
"""Share of the shorter log's steps that two logs have in common if they are two runs. A resume repeats fewer
of them."""
WHOLE_SHARE = 0.95
"""Share of the tokens of the longest run of its variant from which on a run did not break off."""
_RUN = ["scale", "variant", "seed"]
_ARM = ["scale", "variant"]
_WHY = "the lowest mean loss over its seeds"


@dataclass(frozen=True)
class TunedLogs:
    """Rows of the runs at the best learning rates, and the tuning that chose them."""

    frame: pl.DataFrame
    tuning: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Tuning by variant, in the form of rule.json."""
    notes: tuple[str, ...] = ()


@dataclass
class _Part:
    """Rows of one log that are one run, or part of one."""

    scale: str
    variant: str
    seed: int
    log: int
    point: float | None
    """Constant rate that tells the run from others of the same log; None if the log has one run."""
    peak: float
    lowest: float
    last: float
    first_step: int
    last_step: int
    tokens: int

    @property
    def is_constant(self) -> bool:
        """True if the rate never changes: a setting rather than a schedule."""
        return self.lowest == self.peak

    def overlap(self, part: _Part) -> float:
        """Return the share of the shorter part's steps that lie within the other."""
        num_steps = min(self.last_step, part.last_step) - max(self.first_step, part.first_step)
        shortest = min(one.last_step - one.first_step for one in (self, part))
        return num_steps / shortest if shortest > 0 else float(num_steps >= 0)


def mark_grids(frame: pl.DataFrame, log: str) -> pl.DataFrame:
    """Return the table with the column GRID_RATE. log: column that numbers the logs that rows come from."""
    without_marks = frame.with_columns(pl.lit(None, pl.Float64).alias(GRID_RATE))
    if frame["learning_rate"].null_count() == frame.height:
        return without_marks
    frame_of_points = _with_points(frame, log)
    parts = _parts(frame_of_points, log)
    for group in _grouped(parts, lambda part: (part.scale, part.variant, part.seed)):
        _join_resumes(group)
    marks = [
        (*_key(part), part.peak)
        for arm in _grouped(parts, lambda part: (part.scale, part.variant))
        if _has_grid(arm)
        for part in arm
    ]
    if not marks:
        return without_marks
    keys = [*_RUN, log, "point"]
    types = {name: frame_of_points.schema[name] for name in keys} | {GRID_RATE: pl.Float64}
    table = pl.DataFrame(marks, schema=types, orient="row")
    return frame_of_points.join(table, on=keys, how="left", nulls_equal=True, maintain_order="left").drop(
        "point"
    )


def _key(part: _Part) -> tuple[str, str, int, int, float | None]:
    return part.scale, part.variant, part.seed, part.log, part.point


def _grouped(parts: Sequence[_Part], key: Any) -> list[list[_Part]]:
    groups: dict[Any, list[_Part]] = defaultdict(list)
    for part in parts:
        groups[key(part)].append(part)
    return [*groups.values()]


def _with_points(frame: pl.DataFrame, log: str) -> pl.DataFrame:
    """Add the column `point`: the rate, where one log has most steps of a run at several rates."""
    keys = [*_RUN, log, "branch", "domain", "step"]
    if frame.select(keys).hash_rows().n_unique() == frame.height:
        return frame.with_columns(pl.lit(None, pl.Float64).alias("point"))  # no step comes twice
    rate = pl.col("learning_rate")
    rated_rows = frame.filter(rate.is_not_null() & pl.col("loss").is_not_null())
    steps = rated_rows.group_by(keys).agg(rates=rate.n_unique())
    is_several = (pl.col("rates") > 1).mean() >= MIN_OVERLAP
    grids = steps.group_by(*_RUN, log).agg(is_several.alias("is_grid")).filter("is_grid")
    if grids.is_empty():
        return frame.with_columns(pl.lit(None, pl.Float64).alias("point"))
    joined_rows = frame.join(grids, on=[*_RUN, log], how="left", nulls_equal=True, maintain_order="left")
    return joined_rows.with_columns(pl.when("is_grid").then(rate).alias("point")).drop("is_grid")


def _parts(frame: pl.DataFrame, log: str) -> list[_Part]:
    rate = pl.col("learning_rate").round_sig_figs(DIGITS)
    rated_rows = frame.filter(pl.col("learning_rate").is_not_null() & pl.col("loss").is_not_null())
    parts = rated_rows.group_by(*_RUN, log, "point", maintain_order=True).agg(
        peak=rate.max(), lowest=rate.min(), last=rate.sort_by("step").last(),
        first_step=pl.col("step").min(), last_step=pl.col("step").max(), tokens=pl.col("tokens").max(),
    )  # fmt: skip
    return [_Part(*row) for row in parts.iter_rows()]


def _join_resumes(parts: Sequence[_Part]) -> None:
    """Give logs with other steps of one run, as a resume writes them, the peak of the whole run."""
    pairs = itertools.combinations(parts, 2)
    if len(parts) > 1 and any(a.overlap(b) < MIN_OVERLAP for a, b in pairs):
        peak = max(part.peak for part in parts)
        for part in parts:
            part.peak = peak


def _has_grid(arm: Sequence[_Part]) -> bool:
    """Return True if the runs of one variant and scale have several peaks. A run that broke off while its
    rate still rose counts with the next larger peak."""
    longest = max(part.tokens for part in arm)
    rising = [
        part for part in arm
        if part.tokens < WHOLE_SHARE * longest and part.last == part.peak and not part.is_constant
    ]  # fmt: skip
    peaks = sorted({part.peak for part in arm if part not in rising})
    for part in rising:
        part.peak = next((peak for peak in peaks if peak >= part.peak), part.peak)
    return len({part.peak for part in arm}) > 1


def best_rates(frame: pl.DataFrame) -> TunedLogs:
    """Return the rows at the best rate of each grid: the lowest mean loss over the seeds, at the end of the
    runs. Rates that are constant in every run are settings, which say nothing of a decay, and are dropped.

    frame: table with GRID_RATE and losses to be minimised. A rate at which a run diverged is not chosen
    where another is left, and a run that broke off is left out of the mean.
    """
    grids = frame.filter(pl.col(GRID_RATE).is_not_null())
    if grids.is_empty():
        return TunedLogs(frame.drop(GRID_RATE))
    optima: dict[tuple[str, str], Optimum] = {}
    notes, losers = [], []
    for (scale, variant), arm in grids.partition_by(_ARM, as_dict=True, maintain_order=True).items():
        curve = _end_losses(arm)
        optimum, best = _optimum(curve, variant)
        optima[scale, variant] = optimum
        rates = ", ".join(f"{rate:.3g}" for rate in sorted(curve))
        notes.append(
            f"{variant} at {scale} has runs at learning rates {rates}: compared at {best:.3g}, {_WHY}"
        )
        losers += [(scale, variant, rate) for rate in curve if rate != best]
    keys = [*_ARM, GRID_RATE]
    other_rates = pl.DataFrame(losers, schema={name: frame.schema[name] for name in keys}, orient="row")
    kept_rows = frame.join(other_rates, on=keys, how="anti", maintain_order="left")
    return TunedLogs(_without_settings(kept_rows).drop(GRID_RATE), _tuning(optima, frame), tuple(notes))


def _end_losses(arm: pl.DataFrame) -> dict[float, float | None]:
    """Return the mean end loss over seeds by rate; None if a run diverged."""
    run_rows = arm.filter(pl.col("branch").is_null() & pl.col("loss").is_not_null())
    ends = run_rows.filter(pl.col("step") == pl.col("step").max().over("seed", GRID_RATE))
    runs = ends.group_by("seed", GRID_RATE).agg(pl.col("loss").mean(), pl.col("tokens").max())
    finite = pl.col("loss").is_finite()
    is_whole = pl.col("tokens") >= WHOLE_SHARE * pl.col("tokens").max()
    table = runs.filter(is_whole | ~finite).group_by(GRID_RATE).agg(pl.col("loss").mean(), ok=finite.all())
    return {rate: loss if ok else None for rate, loss, ok in table.sort(GRID_RATE).iter_rows()}


def _optimum(curve: Mapping[float, float | None], variant: str) -> tuple[Optimum, float]:
    """Return the bracket's optimum and the rate of the grid that is compared."""
    try:
        optimum = find_optimum([*curve], [*curve.values()], variant=variant)
    except UserError:  # every rate diverged: the lowest one shows it
        rate = min(curve)
        points = tuple(sorted(curve.items()))
        return Optimum(rate, float("nan"), len(curve), True, "best_point", points), rate
    _, best = min((loss, rate) for rate, loss in optimum.curve if loss is not None)
    return optimum, best


def _without_settings(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop the rates if no run changes its own."""
    rates = frame.group_by(_RUN).agg(pl.col("learning_rate").n_unique())["learning_rate"]
    if (rates.max() or 0) > 1:  # pyright: ignore[reportOperatorIssue]
        return frame
    return frame.with_columns(pl.lit(None, pl.Float64).alias("learning_rate"))


def _tuning(optima: Mapping[tuple[str, str], Optimum], frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the tuning of each variant over its scales; curve and rate are those of the longest scale."""
    order = frame.group_by("scale").agg(pl.col("tokens").max()).sort("tokens", "scale")["scale"].to_list()
    seeds = frame.filter(pl.col(GRID_RATE).is_not_null())
    tuning: dict[str, dict[str, Any]] = {}
    for variant in dict.fromkeys(variant for _, variant in optima):
        scale_optima = [(scale, optima[scale, variant]) for scale in order if (scale, variant) in optima]
        longest = scale_optima[-1][1]
        tuning[variant] = {
            "learning_rate": longest.learning_rate,
            "points": longest.points,
            "rates": [(scale, [rate for rate, _ in optimum.curve]) for scale, optimum in scale_optima],
            "edge": any(optimum.edge for _, optimum in scale_optima),
            "seed": seeds.filter(variant=variant)["seed"].min(),
            "curve": [[rate, loss] for rate, loss in longest.curve],
        }
    return tuning
