"""Polars frames for the charts: training curves, held-out differences, multipliers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy.special import stdtrit

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Ladder, Rung
from harness.core.number_format import plain_text
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import METRIC_PREFIX, metric_columns, read_curve
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.timeline import PhaseSpan, phase_spans, read_timeline
from harness.report.frames.saved_plan import SavedPlan, read_plan
from harness.report.tables import wording

HALF_WINDOW, CONFIDENCE = 0.02, 0.95
"""Half of the smoothing window, as a share of the run, and level of the pointwise intervals."""
LOAD_COLUMNS = ("load", "dropped")
"""Columns of expert load; empty for dense runs."""


@dataclass(frozen=True)
class RecordedRun:
    """Run of a sweep with the record in its `run.json`."""

    path: RunDir
    record: Provenance


@dataclass(frozen=True)
class Frames:
    """Data of all charts of one report."""

    name: str
    """Name of the sweep's folder, or of the files of a log."""
    sweep: SweepDir | None
    """Sweep that was read; None for curves that another trainer logged."""
    unit: str
    """Unit of the losses that are compared."""
    runs: list[RecordedRun]
    scales: list[str]
    """Scales whose losses are in `unit`, by compute."""
    variants: list[str]
    """Variants: the control first, then the treatments as declared."""
    losses: pl.DataFrame
    """Columns scale, variant, seed, step, tokens, flops, device_seconds, loss, smooth (in `unit`)."""
    evals: pl.DataFrame
    """Columns scale, variant, seed, step, tokens, phase, loss (mean over the domains of the rule).
    `phase`: hot | decayed | branch (the decayed end of a cooldown branch)."""
    expert_loads: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Columns scale, variant, seed, step, tokens, load, dropped (smoothed) of runs with experts."""
    own_metrics: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Columns scale, variant, seed, step, tokens, label (metric and scale), value (smoothed) of the metrics
    that runs record in each step."""
    other_scales: list[str] = field(default_factory=list)
    """Scales whose losses have another unit, by compute."""
    lanes: dict[str, list[PhaseSpan]] = field(default_factory=dict)
    """Phases of each run over time, by run; without runs that have no timeline."""
    plan: SavedPlan | None = None
    """Saved plan of the sweep, if there is one."""


def read_frames(sweep: SweepDir, comparison: Comparison) -> Frames:
    """Read the data of all charts from disk, without runs whose `run.json` cannot be read."""
    runs = [RecordedRun(path, record) for path in sweep.runs() if (record := read_provenance(path))]
    rule = comparison.rule
    points = points_per_run(len(runs))
    variants = dict.fromkeys([rule.control, *rule.family, *(run.record.variant for run in runs)])
    steps = [_steps(run, points) for run in runs]
    sparse = [frame for frame in steps if frame["load"].is_finite().any()]
    loads = [frame.drop("flops", "device_seconds", "loss", "smooth") for frame in sparse]
    metrics = [frame for run in runs if run.record.facts.metrics for frame in _own_metrics(run, points)]
    comparable = [run for run in runs if run.record.facts.loss_unit == comparison.loss_unit]
    scales = _by_compute(comparable)
    return Frames(
        name=sweep.path.name,
        sweep=sweep,
        unit=comparison.loss_unit,
        runs=runs,
        scales=scales,
        other_scales=[scale for scale in _by_compute(runs) if scale not in scales],
        variants=list(variants),
        losses=pl.concat([frame.drop(*LOAD_COLUMNS) for frame in steps]) if runs else pl.DataFrame(),
        evals=pl.concat([_evals(run, rule.domains) for run in comparable]) if comparable else pl.DataFrame(),
        expert_loads=pl.concat(loads) if loads else pl.DataFrame(),
        own_metrics=pl.concat(metrics) if metrics else pl.DataFrame(),
        plan=read_plan(sweep),
        lanes={
            f"{run.record.scale}/{run.record.variant}/seed{run.record.seed}": spans
            for run in runs
            if (spans := phase_spans(read_timeline(run.path)))
        },
    )


def points_per_run(num_runs: int) -> int:
    """Return the number of steps to draw per run: 8,000 in all, but 60 to 240 per run."""
    return max(60, min(240, 8_000 // max(1, num_runs)))


def smooth_curve(values: np.ndarray, share: float = HALF_WINDOW) -> np.ndarray:
    """Return the mean over a centred window, which does not lag, without values that are not finite.

    The window narrows towards the start, where a curve falls too fast for a wide window. The result has the
    length of `values`, with NaN where the window holds no finite value.
    """
    position = np.arange(len(values))
    half = np.minimum(max(1, round(share * len(values))), position // 4)
    low, high = position - half, np.minimum(position + half + 1, len(values))
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    weight = np.concatenate([[0], np.cumsum(finite)])
    covered = weight[high] - weight[low]
    empty = np.full(len(values), np.nan)
    return np.divide(total[high] - total[low], covered, out=empty, where=covered > 0)


def thin_rows(length: int, points: int) -> list[int]:
    """Return row numbers to draw: half evenly spaced, half evenly on a log axis, with both ends."""
    if length <= points:
        return list(range(length))
    even = np.linspace(0, length - 1, points // 2)
    early = np.geomspace(1, length, points // 2) - 1
    return np.unique(np.concatenate([even, early]).round().astype(int)).tolist()


def paired_deltas(evals: pl.DataFrame, control: str) -> pl.DataFrame:
    """Add `delta` to the treatments' rows: loss minus the control's at equal scale, seed, step and phase."""
    keys = ["scale", "seed", "step", "phase"]
    base = evals.filter(variant=control).select(*keys, pl.col("loss").alias("base"))
    pairs = evals.filter(pl.col("variant") != control).join(base, on=keys, how="inner")
    return pairs.with_columns(delta=pl.col("loss") - pl.col("base")).filter(pl.col("delta").is_finite())


def mean_deltas(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return mean over seeds and n at each point, with a pointwise t interval (low, high) if n > 1."""
    keys = ["scale", "variant", "step", "tokens", "phase"]
    delta, n = pl.col("delta"), pl.len().cast(pl.Int64)
    grouped = pairs.group_by(keys).agg(mean=delta.mean(), sd=delta.std(), n=n)
    degrees = np.maximum(grouped["n"].to_numpy() - 1, 1)
    reach = pl.Series(stdtrit(degrees, (1 + CONFIDENCE) / 2)) * grouped["sd"] / grouped["n"].sqrt()
    bounds = grouped.with_columns(low=pl.col("mean") - reach, high=pl.col("mean") + reach)
    return bounds.drop("sd").sort(keys)


def end_effects(comparison: Comparison) -> pl.DataFrame:
    """Return the differences that the verdict uses: scale, variant, tokens, mean, low, high, n, label."""
    rows = [
        (rung.scale, rung.variant, rung.tokens, rung.delta.mean, rung.delta.low, rung.delta.high,
         rung.delta.n,
         plain_text(f"{wording.format_effect(rung.delta)}, {wording.estimand_text(rung.delta)}"))
        for rung in comparison.rungs
        if rung.delta.mean is not None
    ]  # fmt: skip
    numbers = dict.fromkeys(("tokens", "mean", "low", "high"), pl.Float64)
    schema = {"scale": pl.String, "variant": pl.String, **numbers, "n": pl.Int64, "label": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def multipliers(comparison: Comparison) -> pl.DataFrame:
    """Return k of each rung, pooled, and at the target: variant, kind, scale, flops, k, low, high, n, label,
    top.

    `kind` is rung | pooled (one row at each end of the ladder) | trend (the same, and the end of the line)
    | bet (k at the target, with its interval at 90 %).
    """
    rows = [row for ladder in comparison.ladder for row in _ladder_rows(comparison, ladder)]
    numbers = dict.fromkeys(("flops", "k", "low", "high"), pl.Float64)
    schema = {"variant": pl.String, "kind": pl.String, "scale": pl.String, **numbers, "n": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema | {"label": pl.String})
    return frame.with_columns(top=pl.coalesce("high", "k"))


def _ladder_rows(comparison: Comparison, ladder: Ladder) -> list[dict]:
    rungs_of_variant = (rung for rung in comparison.rungs if rung.variant == ladder.variant)
    rungs = [rung for rung in rungs_of_variant if rung.k and rung.k.k and rung.flops]
    rows = [_rung_row(rung) for rung in rungs]
    reach = [rung.flops for rung in rungs if rung.flops]
    if ladder.k and ladder.k.k and len(reach) > 1:
        label = f"pooled {wording.format_multiplier(ladder.k)}"
        ends = {"k": ladder.k.k, "low": ladder.k.low, "high": ladder.k.high, "n": ladder.k.n, "label": label}
        rows += [_row(ladder.variant, "pooled", flops=flops, **ends) for flops in (min(reach), max(reach))]
    return rows + _trend_rows(ladder, reach) + _bet_rows(ladder)


def _trend_rows(ladder: Ladder, reach: list[float]) -> list[dict]:
    """Build the two ends of the line through the scales."""
    projection, trend = ladder.projection, ladder.trend
    if not (projection and trend and reach):
        return []
    interval = wording.format_multiplier_interval(projection.k, projection.low, projection.high)
    label = f"line through the scales: {interval}, EXTRAPOLATION"
    return [
        _row(ladder.variant, "trend", flops=flops, label=label,
             k=projection.k * (flops / projection.flops) ** trend.slope)
        for flops in (min(reach), projection.flops)
    ]  # fmt: skip


def _bet_rows(ladder: Ladder) -> list[dict]:
    """Build the row of k at the target."""
    if ladder.bet is None:
        return []
    estimate = ladder.bet.estimate
    k, low, high = (math.exp(end) for end in (estimate.log_k, estimate.low, estimate.high))
    label = f"{wording.format_multiplier_interval(k, low, high)} at 90 %, {ladder.bet.decision.value}"
    row = _row(ladder.variant, "bet", flops=estimate.target_flops, label=label, k=k, low=low, high=high)
    return [row]


def _rung_row(rung: Rung) -> dict:
    assert rung.k is not None
    k = rung.k
    label = f"{wording.format_multiplier(k)}, {wording.estimand_text(rung.delta)}"
    ends = {"k": k.k, "low": k.low, "high": k.high, "n": k.n}
    return _row(rung.variant, "rung", scale=rung.scale, flops=rung.flops, label=label, **ends)


def _row(variant: str, kind: str, **values: object) -> dict:
    return {"variant": variant, "kind": kind, "scale": "", "low": None, "high": None, "n": None, **values}


def _by_compute(runs: list[RecordedRun]) -> list[str]:
    compute = {run.record.scale: run.record.tokens * run.record.facts.flops_per_token for run in runs}
    return sorted(compute, key=lambda scale: compute[scale])


def _steps(run: RecordedRun, points: int) -> pl.DataFrame:
    return thin_steps(read_curve(run.path, "steps"), run.record, points)


def thin_steps(curve: pl.DataFrame, record: Provenance, points: int) -> pl.DataFrame:
    """Return the steps of a run that are drawn: columns scale, variant, seed, step, tokens, flops,
    device_seconds, loss, and smooth, load, dropped, which are moving averages over all steps."""
    sources = {"smooth": "loss", "load": "expert_load", "dropped": "expert_dropped"}
    smooth = [pl.Series(name, smooth_curve(curve[column].to_numpy())) for name, column in sources.items()]
    selection = curve.with_columns(smooth)[thin_rows(curve.height, points)]
    columns = ("step", "tokens", "flops", "device_seconds", "loss", *sources)
    return _with_run_columns(selection, record, *columns)


def _own_metrics(run: RecordedRun, points: int) -> list[pl.DataFrame]:
    """Return the curve of each metric of the steps."""
    curve = read_curve(run.path, "steps")
    frames = []
    for column in metric_columns(curve.columns):
        smooth = pl.Series("value", smooth_curve(curve[column].cast(pl.Float64).to_numpy()))
        label = pl.lit(f"{column.removeprefix(METRIC_PREFIX)}, {run.record.scale}").alias("label")
        selection = curve.with_columns(smooth, label)[thin_rows(curve.height, points)]
        frames.append(_with_run_columns(selection, run.record, "step", "tokens", "label", "value"))
    return frames


def _evals(run: RecordedRun, domains: tuple[str, ...]) -> pl.DataFrame:
    branches = [read_curve(path, "evals") for path in run.path.branches()]
    return mean_evals(read_curve(run.path, "evals"), branches, run.record, domains)


def mean_evals(
    evals: pl.DataFrame, branches: Sequence[pl.DataFrame], record: Provenance, domains: Collection[str]
) -> pl.DataFrame:
    """Return the mean held-out losses of a run: columns scale, variant, seed, step, tokens, phase, loss.

    `domains`: those that the rule decides by; empty for all. `branches`: evaluations of cooldown branches.
    """
    phase = pl.when("decayed").then(pl.lit("decayed")).otherwise(pl.lit("hot"))
    trained = pl.col("step") > 0  # before that a fine-tuned run is its parent
    main = evals.filter(trained).with_columns(phase=phase)
    ends = [branch.filter("decayed").with_columns(phase=pl.lit("branch")) for branch in branches]
    rows = pl.concat([main, *ends], how="diagonal")  # a run may have metrics that its branch has not
    decisive = rows.filter(pl.col("domain").is_in(domains)) if domains else rows
    point = ["step", "tokens", "phase"]
    means = decisive.group_by(point).agg(pl.col("loss").mean()).sort(point)
    return _with_run_columns(means, record, *point, "loss")


def loss_ceiling(losses: pl.DataFrame) -> float:
    """Return the top of the loss axis: the loss of the median run after a twelfth of its steps.

    The drop in the first steps, or a run that diverged, would flatten all other curves.
    """
    step = pl.col("step")
    later = losses.filter(step >= step.max().over("scale") / 12, pl.col("smooth").is_finite())
    starts = later.group_by("scale", "variant", "seed").agg(pl.col("smooth").sort_by("step").first())
    medians = starts.group_by("scale").agg(pl.col("smooth").median())["smooth"].to_list()
    return 1.05 * max(medians, default=1.0)


def _with_run_columns(frame: pl.DataFrame, record: Provenance, *columns: str) -> pl.DataFrame:
    labels = {"scale": record.scale, "variant": record.variant, "seed": record.seed}
    return frame.select(*[pl.lit(value).alias(name) for name, value in labels.items()], *columns)
