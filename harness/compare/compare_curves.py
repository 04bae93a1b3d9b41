"""Verdict over the logs of any trainer: tables instead of a sweep directory, under the same rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.compare.inputs.evaluations import COLUMNS, Evals
from harness.compare.inputs.importers.open_logs import LogReading, read_logs
from harness.compare.inputs.importers.understood import UnderstoodLogs
from harness.compare.inputs.known_slopes import known_slopes
from harness.compare.inputs.log_tables import RUN_COLUMNS
from harness.compare.inputs.log_units import LogUnit, to_losses, unit_mismatches
from harness.compare.inputs.lr_grids import best_rates
from harness.compare.inputs.matched_amounts import read_match
from harness.compare.inputs.run_records import RunRecord
from harness.compare.judge import VerdictInputs, judge
from harness.compare.results.comparison import Comparison, Deviation, Rule
from harness.core.errors import UserError, did_you_mean
from harness.records.run.provenance import Facts, Provenance
from harness.records.run.status import State, Status

VOUCHED_DECAYED = (
    "you vouch (--decayed last) that the learning rate had decayed at the last evaluation of each run"
)
UNVERIFIED_DECAY = (
    "nothing in the logs shows that the learning rate had decayed at their ends, so no direction is given: "
    "add a column `decayed` or `learning_rate`, or vouch with --decayed last"
)
DECAYED_SHARE = 0.2
"""Share of a run's largest learning rate up to which it counts as decayed."""
COMPLETE_SHARE = 0.95
"""Share of the tokens of the longest run of its variant from which on a run did not break off."""
UNKNOWN_SIZES = "there is no column `parameters` or `flops`, so the scales are ordered by their tokens"

Tables = Sequence[pl.DataFrame | Path | str] | Path | str


def compare_curves(
    tables: Tables | pl.DataFrame | UnderstoodLogs,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
    decayed: str | None = None,
    unit: str | None = None,
    margin_nats: float | None = None,
    slope: float | None = None,
    horizon: str | None = None,
    match: str | None = None,
) -> Comparison:
    """Return the verdict over tables or files with the columns variant, scale, seed, step, tokens, loss.

    tables: one or several polars frames, or paths: tables (CSV, JSON lines, Parquet) and logs of other tools
    (docs/logs.md); or the answer of `read_logs`, which maps columns and reads names of runs.
    Optional columns: domain; flops (of the run so far) or parameters, which order the scales and give
    k_compute; decayed or learning_rate, without which no direction is given unless `decayed="last"` vouches
    for the ends; branch (share of the tokens at which a cooldown branch ends; empty on rows of the run
    itself), which gives k_tokens; data_seed; seconds (of the run so far); unit, or the option `unit` for all
    rows (nats, bits, perplexity, bits_per_byte, accuracy, higher_is_better). margin, in ln k, and alpha lie
    between 0 and 1; margin_nats is a margin in the loss itself, which needs no k. slope: nats by which the
    control's loss falls an e-fold of tokens (SLOPE_GIVEN); horizon: the variant that is the control trained
    for another number of tokens, which gives that slope and is no treatment. match: what the runs got equal
    amounts of instead of tokens, "flops" or "seconds"; without a column for the seconds the caller vouches
    for them. The control defaults to the first variant. Tables have no hash of the examples, so pairing by
    seed is flagged ORDER_UNVERIFIED. Raises UserError for unreadable tables, and for too few to compare.
    """
    inputs = read_curve_inputs(
        tables, control=control, experiment=experiment, margin=margin, alpha=alpha, decayed=decayed,
        unit=unit, margin_nats=margin_nats, slope=slope, horizon=horizon, match=match,
    )  # fmt: skip
    return judge(inputs)


def read_curve_inputs(
    tables: Tables | pl.DataFrame | UnderstoodLogs,
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
    decayed: str | None = None,
    unit: str | None = None,
    margin_nats: float | None = None,
    slope: float | None = None,
    horizon: str | None = None,
    match: str | None = None,
) -> VerdictInputs:
    """Read the tables that `compare_curves` judges. Raises UserError for unreadable ones."""
    _check_options(margin, alpha, decayed)
    if margin_nats is not None and not margin_nats > 0:
        raise UserError(f"margin_nats={margin_nats:g}: must lie above 0")
    if not isinstance(tables, UnderstoodLogs):
        logs = [tables] if isinstance(tables, pl.DataFrame | Path | str) else tables
        tables = read_logs(logs, LogReading())
    frame = tables.frame
    variants = frame["variant"].unique(maintain_order=True).to_list()
    name = variants[0] if control is None else control
    if name not in variants:
        raise UserError(f"control={name}: no such variant in the curves; {did_you_mean(name, variants)}")
    family = tuple(sorted({*variants} - {name, horizon}))
    if not family:
        raise UserError(f"--curves: '{name}' is the only variant. Add the curves of another variant.")
    amounts = read_match(match, tables.frame)
    rule = Rule(
        "", name, None, (), margin, alpha, "none", family, "", match=amounts.axis, margin_nats=margin_nats
    )
    tuned = best_rates(to_losses(frame, unit))
    frame = _fill_missing(tuned.frame, vouched=decayed is not None)
    problems = unit_mismatches(frame.filter(_IS_SCORED), name)
    runs = [_record(run, problems) for run in frame.partition_by(RUN_COLUMNS, maintain_order=True)]
    deviations = [Deviation("no_rule", "no rule was fixed before these runs")]
    slopes = known_slopes(runs, name, slope, horizon)
    notes = [*_notes(frame, runs, problems), *amounts.notes, *tuned.notes, *tables.notes, *slopes.notes]
    return VerdictInputs(
        experiment, rule, slopes.compared_runs, deviations, tuning=tuned.tuning, notes=notes,
        known_slopes=slopes.slopes,
    )  # fmt: skip


def _check_options(margin: float, alpha: float, decayed: str | None) -> None:
    """Raise UserError for a margin, a level or a vouching that means nothing."""
    for name, value in (("margin", margin), ("alpha", alpha)):
        if not 0 < value < 1:
            raise UserError(f"{name}={value}: must lie between 0 and 1")
    if decayed not in (None, "last"):
        raise UserError(
            f"decayed={decayed}: give 'last' to vouch for the last evaluation of each run, or leave it out"
        )


def _notes(frame: pl.DataFrame, runs: Sequence[RunRecord], problems: Mapping[Any, str]) -> list[str]:
    scales = {run.provenance.scale for run in runs}
    sizes_unknown = any(not run.provenance.facts.flops_per_token for run in runs if not run.evals.empty)
    notes = [VOUCHED_DECAYED] * frame["decay_vouched"].any()
    notes += [UNVERIFIED_DECAY] * frame["decay_unverified"].any()
    notes += [f"UNIT_MISMATCH: {problem}" for problem in problems.values()]
    return notes + [UNKNOWN_SIZES] * (sizes_unknown and len(scales) > 1)


_IS_SCORED = pl.col("loss").is_not_null()
_PART = [*RUN_COLUMNS, "branch"]


def _scored(column: str) -> pl.Expr:
    """Return the values of a column on rows with a loss. The others are training rows or summaries."""
    return pl.when(_IS_SCORED).then(column)


def _fill_missing(frame: pl.DataFrame, *, vouched: bool) -> pl.DataFrame:
    """Fill missing cells that follow from others.

    If the evaluations of a run have no value of `decayed`, its learning rate tells: decayed at the last
    evaluation if at most DECAYED_SHARE of its largest. Without one the last evaluation counts as decayed:
    because the caller vouches, or else unverified and unless the run broke off before others of its variant.
    """
    is_last = pl.col("step") == _scored("step").max().over(_PART)
    complete = pl.col("tokens") >= COMPLETE_SHARE * _scored("tokens").max().over("scale", "variant", "branch")
    no_marks = _scored("decayed").is_null().all().over(_PART)
    rate = pl.col("learning_rate")
    is_low = (rate <= DECAYED_SHARE * rate.max().over(RUN_COLUMNS)).fill_null(False)
    no_rate = (is_last & _IS_SCORED & rate.is_null()).any().over(_PART)
    is_assumed, is_vouched = no_marks & no_rate & (not vouched), no_marks & vouched
    decayed = pl.when(is_vouched).then(is_last).when(is_assumed).then(is_last & complete)
    return frame.with_columns(
        pl.col("domain").fill_null("loss"),
        pl.col("flops").fill_null(6.0 * pl.col("parameters") * pl.col("tokens")).fill_null(0.0),
        decayed.when(no_marks).then(is_last & is_low).otherwise("decayed").fill_null(False).alias("decayed"),
        pl.col("seconds").fill_null(0.0).alias("device_seconds"),
        is_assumed.alias("decay_unverified"),
        is_vouched.alias("decay_vouched"),
    )


def _record(run: pl.DataFrame, problems: Mapping[Any, str]) -> RunRecord:
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
    if first["unit"]:
        facts = dataclasses.replace(facts, loss_unit=LogUnit(first["unit"]).loss_name)
    seed, order = first["seed"], first["data_seed"]
    record = Provenance(
        "", "", "", "", first["scale"], first["variant"], seed, seed if order is None else order,
        parameters, tokens, facts, {},
    )  # fmt: skip
    status = Status(State.finished, steps, steps, tokens)
    path = f"{first['scale']}/{first['variant']}/seed{seed}"
    return RunRecord(
        path, None, record, status, {}, evals, None, branches,
        decay_unverified=run["decay_unverified"].any(),
        unit_problem=problems.get((first["scale"], first["variant"]), ""),
    )  # fmt: skip


def _evals(rows: pl.DataFrame) -> Evals:
    in_order = rows.sort("step", maintain_order=True)
    return Evals({name: in_order[name].to_numpy() for name in COLUMNS})
