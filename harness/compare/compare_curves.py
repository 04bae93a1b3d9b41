"""Verdict over the logs of any trainer: tables instead of a sweep directory, under the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness.compare.inputs.evaluations import COLUMNS, Evals
from harness.compare.inputs.log_tables import RUN_COLUMNS, read_tables
from harness.compare.inputs.run_records import RunRecord
from harness.compare.judge import VerdictInputs, judge
from harness.compare.results.comparison import Comparison, Deviation, Rule
from harness.core.errors import UserError, did_you_mean
from harness.records.run.provenance import Facts, Provenance
from harness.records.run.status import State, Status

ASSUMED_DECAYED = (
    "there is no column `decayed`, so the last evaluation of each run counts as a decayed checkpoint, "
    "unless the run broke off"
)
UNKNOWN_SIZES = "there is no column `parameters` or `flops`, so the scales are ordered by their tokens"

Tables = Sequence[pl.DataFrame | Path | str]


def compare_curves(
    tables: Tables | pl.DataFrame,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Comparison:
    """Return the verdict over tables or files with the columns variant, scale, seed, step, tokens, loss.

    tables: one or several polars frames, or files: CSV (commas, semicolons or tabs), JSON lines or Parquet.
    Optional columns: domain; flops (of the run
    so far) or parameters, which order the scales and give k_compute; decayed; branch (share of the tokens at
    which a cooldown branch ends; empty on rows of the run itself), which gives k_tokens; data_seed. The
    control defaults to the first variant. Tables have no hash of the examples, so pairing by seed is
    flagged ORDER_UNVERIFIED. Raises UserError for unreadable tables and if there is nothing to compare.
    """
    inputs = read_curve_inputs(tables, control=control, experiment=experiment, margin=margin, alpha=alpha)
    return judge(inputs)


def read_curve_inputs(
    tables: Tables | pl.DataFrame,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> VerdictInputs:
    """Read the tables that `compare_curves` judges. Raises UserError for unreadable ones."""
    frame = read_tables([tables] if isinstance(tables, pl.DataFrame) else tables)
    variants = frame["variant"].unique(maintain_order=True).to_list()
    name = variants[0] if control is None else control
    if name not in variants:
        raise UserError(f"control={name}: no such variant in the curves; {did_you_mean(name, variants)}")
    if len(variants) == 1:
        raise UserError(f"--curves: '{name}' is the only variant. Add the curves of another variant.")
    family = tuple(sorted({*variants} - {name}))
    rule = Rule("", name, None, (), margin, alpha, "none", family, "")
    runs = [_record(run) for run in _fill_missing(frame).partition_by(RUN_COLUMNS, maintain_order=True)]
    deviations = [Deviation("no_rule", "no rule was fixed before these runs")]
    return VerdictInputs(experiment, rule, runs, deviations, notes=_notes(frame, runs))


def _notes(frame: pl.DataFrame, runs: Sequence[RunRecord]) -> list[str]:
    no_marks = frame.group_by(*RUN_COLUMNS, "branch").agg(_scored("decayed").is_null().all())
    scales = {run.provenance.scale for run in runs}
    sizes_unknown = any(not run.provenance.facts.flops_per_token for run in runs if not run.evals.empty)
    notes = [ASSUMED_DECAYED] * no_marks["decayed"].any()
    return notes + [UNKNOWN_SIZES] * (sizes_unknown and len(scales) > 1)


def _scored(column: str) -> pl.Expr:
    """Return the values of a column on rows with a loss. The others are training rows or summaries."""
    return pl.when(pl.col("loss").is_not_null()).then(column)


def _fill_missing(frame: pl.DataFrame) -> pl.DataFrame:
    """Fill missing cells that follow from others.

    If the evaluations of a run have no value of `decayed`, its last evaluation counts as decayed, provided
    that it has all the tokens that its variant gets at this scale: a run that broke off has not decayed.
    """
    part = [*RUN_COLUMNS, "branch"]
    is_last = pl.col("step") == _scored("step").max().over(part)
    complete = pl.col("tokens") == _scored("tokens").max().over("scale", "variant", "branch")
    no_marks = _scored("decayed").is_null().all().over(part)
    return frame.with_columns(
        pl.col("domain").fill_null("loss"),
        pl.col("flops").fill_null(6.0 * pl.col("parameters") * pl.col("tokens")).fill_null(0.0),
        pl.when(no_marks).then(is_last & complete).otherwise("decayed").fill_null(False).alias("decayed"),
        pl.lit(0.0).alias("device_seconds"),
    )


def _record(run: pl.DataFrame) -> RunRecord:
    """Convert the rows of one run to the form of a run read from disk."""
    first = run.row(0, named=True)
    scored = run.filter(pl.col("loss").is_not_null())
    rows = scored.filter(pl.col("branch").is_not_null())
    branches = {part["branch"][0]: _evals(part) for part in rows.partition_by("branch")}
    evals = _evals(scored.filter(pl.col("branch").is_null()))
    final = evals.final
    steps, tokens, flops = (final.step, final.tokens, final.flops) if final else (0, 0, 0.0)
    parameters = int(first["parameters"] or 0)
    flops_per_token = flops / tokens if flops and tokens else 6.0 * parameters
    facts = Facts(parameters, parameters, 0, {}, flops_per_token, flops_per_token, {}, 0, 0, steps, 0, "", "")
    seed, order = first["seed"], first["data_seed"]
    record = Provenance(
        "", "", "", "", first["scale"], first["variant"], seed, seed if order is None else order,
        parameters, tokens, facts, {},
    )  # fmt: skip
    status = Status(State.finished, steps, steps, tokens)
    path = f"{first['scale']}/{first['variant']}/seed{seed}"
    return RunRecord(path, None, record, status, {}, evals, None, branches)


def _evals(rows: pl.DataFrame) -> Evals:
    return Evals({name: rows[name].to_numpy() for name in COLUMNS})
