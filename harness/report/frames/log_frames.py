"""Frames for the charts from curves that another trainer logged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from harness.compare.inputs.evaluations import Evals
from harness.compare.inputs.pairing import sort_scales
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.comparison import Comparison
from harness.report.frames.sweep_frames import HALF_WINDOW, Frames, points_per_run, smooth_curve, thin_rows

_AXES = ("step", "tokens", "flops", "device_seconds")


def log_frames(name: str, runs: Sequence[RunRecord], comparison: Comparison) -> Frames:
    """Build the frames of runs whose rows are in memory. `name` is the name of the log."""
    tables = [(run, _mean_by_step(run, run.evals)) for run in runs]
    points = points_per_run(len(runs))
    return Frames(
        name=name,
        sweep=None,
        unit=comparison.loss_unit,
        runs=[],
        scales=sort_scales(runs),
        variants=[comparison.rule.control, *comparison.rule.family],
        losses=pl.concat([_losses(rows, points) for _, rows in tables]),
        evals=pl.concat([_evals(run, rows) for run, rows in tables]),
    )


def _mean_by_step(run: RunRecord, evals: Evals) -> pl.DataFrame:
    """Return means over domains by step: scale, variant, seed, the axes, decayed, loss."""
    labels = {"scale": run.provenance.scale, "variant": run.provenance.variant, "seed": run.provenance.seed}
    frame = pl.DataFrame(evals.columns, schema_overrides={"decayed": pl.Boolean, "loss": pl.Float64})
    axes = [pl.col(name).first() for name in _AXES if name != "step"]
    means = frame.group_by("step").agg(*axes, pl.col("decayed").all(), pl.col("loss").mean()).sort("step")
    return means.select(*[pl.lit(value).alias(label) for label, value in labels.items()], pl.all())


def _losses(rows: pl.DataFrame, points: int) -> pl.DataFrame:
    """Return the losses with a smoothed column; too few rows for the window are not smoothed."""
    values = rows["loss"].to_numpy()
    smooth = smooth_curve(values) if values.size * HALF_WINDOW >= 1 else np.array(values)
    selection = rows.with_columns(smooth=smooth)[thin_rows(rows.height, points)]
    return selection.select("scale", "variant", "seed", *_AXES, "loss", "smooth")


def _evals(run: RunRecord, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the run's own rows, hot or decayed, and the decayed ends of its branches."""
    phase = pl.when("decayed").then(pl.lit("decayed")).otherwise(pl.lit("hot"))
    main = rows.with_columns(phase=phase)
    branches = [_mean_by_step(run, evals).filter("decayed") for evals in run.branches.values()]
    ends = [branch.with_columns(phase=pl.lit("branch")) for branch in branches]
    return pl.concat([main, *ends]).select("scale", "variant", "seed", "step", "tokens", "phase", "loss")
