"""Logs of any trainer, judged by the same rules: tables instead of a sweep directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from harness.compare.engine import Evidence, judge
from harness.compare.reading import COLUMNS, Evals, RunRecord
from harness.compare.results import Comparison, Deviation, Rule
from harness.config.errors import UserError, nearest
from harness.records.provenance import Facts, Provenance
from harness.records.status import State, Status

REQUIRED = ("variant", "scale", "seed", "step", "tokens", "loss")
OPTIONAL = ("domain", "flops", "parameters", "decayed", "branch", "data_seed")
ASSUMED = "the last row of each run is taken for a decayed checkpoint: there is no column `decayed`"


def compare_curves(
    tables: Sequence[pl.DataFrame | Path | str],
    *,
    control: str | None = None,
    experiment: str = "curves",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Comparison:
    """The verdict over tables or CSV files with the columns variant, scale, seed, step, tokens, loss.

    Optional columns: domain; flops (of the run so far) or parameters, which order the scales and carry
    k_compute; decayed; branch (share of the tokens at which a cooldown branch ends; empty on rows
    of the run itself), which carries k_tokens; data_seed. The control is the first variant unless
    named. Runs carry no hash of their examples, so pairing by seed is flagged ORDER_UNVERIFIED.
    Raises UserError where a file or column is missing or of the wrong kind.
    """
    frame = pl.concat([_table(table) for table in tables], how="diagonal_relaxed") if tables else None
    if frame is None or frame.is_empty():
        raise UserError(
            "--curves: no rows to compare; give CSV files with the columns " + ", ".join(REQUIRED)
        )
    variants = frame["variant"].unique(maintain_order=True).to_list()
    chosen = str(control or variants[0])
    if chosen not in variants:
        raise UserError(f"control={chosen}: no such variant in the curves; {nearest(chosen, variants)}")
    family = tuple(sorted(set(variants) - {chosen}))
    rule = Rule("", chosen, None, (), margin, alpha, "none", family, "")
    keys = ["scale", "variant", "seed"]
    runs = [_record(run) for run in frame.partition_by(keys, maintain_order=True)]
    notes = () if "decayed" in frame.columns else (ASSUMED,)
    deviations = [Deviation("no_rule", "no rule was written down before these runs")]
    return judge(Evidence(experiment, rule, runs, deviations, notes=notes))


def _table(table: pl.DataFrame | Path | str) -> pl.DataFrame:
    """One table with the types that are needed, or a UserError that names what is wrong."""
    frame, name = (table, "table") if isinstance(table, pl.DataFrame) else (_csv(Path(table)), str(table))
    for column in REQUIRED:
        if column not in frame.columns:
            raise UserError(f"{name}: there is no column '{column}'; {nearest(column, frame.columns)}")
    known = [column for column in (*REQUIRED, *OPTIONAL) if column in frame.columns]
    try:
        return (
            frame.select(known)
            .cast({c: _TYPES[c] for c in known})
            .drop_nulls(["variant", "scale", "seed", "step"])
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{name}: a column is of the wrong kind ({str(error).splitlines()[0]})") from error


_TYPES = {
    "variant": pl.String,
    "scale": pl.String,
    "seed": pl.Int64,
    "step": pl.Int64,
    "tokens": pl.Int64,
    "loss": pl.Float64,
    "domain": pl.String,
    "flops": pl.Float64,
    "parameters": pl.Float64,
    "decayed": pl.Boolean,
    "branch": pl.Float64,
    "data_seed": pl.Int64,
}


def _csv(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema_length=None)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: is not a CSV table ({str(error).splitlines()[0]})") from error


def _record(run: pl.DataFrame) -> RunRecord:
    """One run of the table, in the form in which a run on disk is read."""
    first, branches = run.row(0, named=True), {}
    if "branch" in run.columns:
        rows = run.filter(pl.col("branch").is_not_null())
        branches = {part["branch"][0]: _evals(part) for part in rows.partition_by("branch")}
        run = run.filter(pl.col("branch").is_null())
    evals = _evals(run)
    final = evals.final
    tokens, flops = (final.tokens, final.flops) if final else (0, 0.0)
    parameters = int(first.get("parameters") or 0)
    a_token = flops / tokens if flops and tokens else 6.0 * parameters
    steps = final.step if final else 0
    facts = Facts(parameters, parameters, 0, {}, a_token, a_token, {}, 0, 0, steps, 0, "", "")
    seed = first["seed"]
    order = first.get("data_seed")
    record = Provenance(
        "", "", "", "", first["scale"], first["variant"], seed, seed if order is None else order,
        parameters, tokens, facts, {},
    )  # fmt: skip
    status = Status(State.finished, steps, steps, tokens)
    path = f"{first['scale']}/{first['variant']}/seed{seed}"
    return RunRecord(path, None, record, status, {}, evals, None, branches)


def _evals(rows: pl.DataFrame) -> Evals:
    """The columns of an evaluation table; what the log lacks is filled with what follows from the rest."""
    last = pl.col("step") == pl.col("step").max()
    parameters = pl.col("parameters") if "parameters" in rows.columns else pl.lit(0.0)
    fill = {
        "domain": pl.lit("loss"),
        "flops": 6.0 * parameters * pl.col("tokens"),
        "decayed": last,
        "device_seconds": pl.lit(0.0),
    }
    rows = rows.with_columns(**{name: value for name, value in fill.items() if name not in rows.columns})
    rows = rows.with_columns(pl.col("decayed").fill_null(False), pl.col("flops").fill_null(0.0))
    rows = rows.with_columns(pl.col("loss").fill_null(np.nan), pl.col("tokens").fill_null(0))
    return Evals({name: rows[name].to_numpy() for name in COLUMNS})
