"""Logs of any trainer, judged by the same rules: tables instead of a sweep directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness.compare.inputs.log_tables import RUN, read_tables
from harness.compare.inputs.run_records import COLUMNS, Evals, RunRecord
from harness.compare.judge import Evidence, judge
from harness.compare.results.comparison import Comparison, Deviation, Rule
from harness.core.errors import UserError, nearest
from harness.records.run.provenance import Facts, Provenance
from harness.records.run.status import State, Status

ASSUMED = (
    "the last row of each run is taken for a decayed checkpoint, unless the run broke off: "
    "there is no column `decayed`"
)
UNSIZED = "the scales stand in order of their tokens: no column `parameters` or `flops` sizes them"

Tables = Sequence[pl.DataFrame | Path | str]


def compare_curves(
    tables: Tables | pl.DataFrame,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Comparison:
    """The verdict over tables or files with the columns variant, scale, seed, step, tokens, loss.

    tables: polars frames, CSV or Parquet files, one or several. Optional columns: domain; flops (of the
    run so far) or parameters, which order the scales and carry k_compute; decayed; branch (share of
    the tokens at which a cooldown branch ends; empty on rows of the run itself), which carries
    k_tokens; data_seed. The control is the first variant unless named. Runs carry no hash of
    their examples, so pairing by seed is flagged ORDER_UNVERIFIED.
    Raises UserError where something cannot be read, or there is nothing to compare.
    """
    return judge(gather_curves(tables, control=control, experiment=experiment, margin=margin, alpha=alpha))


def gather_curves(
    tables: Tables | pl.DataFrame,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Evidence:
    """What `compare_curves` judges: the tables as runs."""
    frame = read_tables([tables] if isinstance(tables, pl.DataFrame) else tables)
    variants = frame["variant"].unique(maintain_order=True).to_list()
    chosen = variants[0] if control is None else control
    if chosen not in variants:
        raise UserError(f"control={chosen}: no such variant in the curves; {nearest(chosen, variants)}")
    if len(variants) == 1:
        raise UserError(f"--curves: '{chosen}' is the only variant; give the curves of another one as well")
    family = tuple(sorted({*variants} - {chosen}))
    rule = Rule("", chosen, None, (), margin, alpha, "none", family, "")
    runs = [_record(run) for run in _filled(frame).partition_by(RUN, maintain_order=True)]
    deviations = [Deviation("no_rule", "no rule was written down before these runs")]
    return Evidence(experiment, rule, runs, deviations, notes=_notes(frame, runs))


def _notes(frame: pl.DataFrame, runs: Sequence[RunRecord]) -> list[str]:
    assumed = frame.group_by(*RUN, "branch").agg(pl.col("decayed").is_null().all())["decayed"].any()
    scales = {run.provenance.scale for run in runs}
    unsized = any(not run.provenance.facts.flops_per_token for run in runs if not run.evals.empty)
    return [ASSUMED] * assumed + [UNSIZED] * (unsized and len(scales) > 1)


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    """What the log lacks, from what follows from the rest.

    Where a run says nothing of `decayed`, its last row counts as that, if it has all the tokens that its
    variant ever gets at this scale: a run that broke off, or lost its end, has not decayed.
    """
    part = [*RUN, "branch"]
    end = pl.col("step") == pl.col("step").max().over(part)
    whole = pl.col("tokens") == pl.col("tokens").max().over("scale", "variant", "branch")
    silent = pl.col("decayed").is_null().all().over(part)
    return frame.with_columns(
        pl.col("domain").fill_null("loss"),
        pl.col("flops").fill_null(6.0 * pl.col("parameters") * pl.col("tokens")).fill_null(0.0),
        pl.when(silent).then(end & whole).otherwise("decayed").fill_null(False).alias("decayed"),
        pl.lit(0.0).alias("device_seconds"),
    )


def _record(run: pl.DataFrame) -> RunRecord:
    """One run of the table, in the form in which a run on disk is read."""
    first = run.row(0, named=True)
    scored = run.filter(pl.col("loss").is_not_null())
    rows = scored.filter(pl.col("branch").is_not_null())
    branches = {part["branch"][0]: _evals(part) for part in rows.partition_by("branch")}
    evals = _evals(scored.filter(pl.col("branch").is_null()))
    final = evals.final
    steps, tokens, flops = (final.step, final.tokens, final.flops) if final else (0, 0, 0.0)
    parameters = int(first["parameters"] or 0)
    a_token = flops / tokens if flops and tokens else 6.0 * parameters
    facts = Facts(parameters, parameters, 0, {}, a_token, a_token, {}, 0, 0, steps, 0, "", "")
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
