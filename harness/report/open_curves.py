"""Logs of any trainer opened in Python: their verdict, runs and curves as polars frames, and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.compare import Comparison
from harness.compare.compare_curves import Tables, read_curve_inputs
from harness.compare.inputs.evaluations import Evals
from harness.compare.inputs.importers.open_logs import LogReading, read_logs
from harness.compare.inputs.importers.understood import UnderstoodLogs
from harness.compare.inputs.run_records import RunRecord
from harness.compare.judge import judge
from harness.records.run.metrics import SCHEMAS
from harness.report.opened_comparison import RUN, RUNS, OpenedComparison

if TYPE_CHECKING:
    from harness.report.frames.sweep_frames import Frames

_BRANCH = {"branch": pl.Float64}


@dataclass(frozen=True, repr=False)
class OpenedCurves(OpenedComparison):
    """Verdict, runs, curves and charts of logs. Each is computed once, when it is first used."""

    logs: UnderstoodLogs
    """Rows of the logs, and three lines that say how they were understood."""
    records: Sequence[RunRecord]
    comparison: Comparison

    @cached_property
    def runs(self) -> pl.DataFrame:
        """Row per run, as of a sweep. parameters and flops are null where the logs do not tell them."""
        records = {record.path: record for record in self.records}
        rows = [
            (run.scale, run.variant, run.seed, run.state, run.step, run.steps,
             *_run_size(records.get(run.path)), run.outcome, run.problem, run.path)
            for run in self.comparison.runs
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=RUNS, orient="row")

    @cached_property
    def evals(self) -> pl.DataFrame:
        """Evaluations of all runs, with the columns that those of a sweep have; null where the logs have
        none. `branch` is the share of the tokens at which a cooldown branch ends."""
        tables = [pl.DataFrame(schema={**RUN, **SCHEMAS["evals"], **_BRANCH})]
        for record in self.records:
            tables.append(_evals(record, record.evals, None))
            tables += [_evals(record, evals, share) for share, evals in record.branches.items()]
        return pl.concat(tables, how="diagonal")

    @cached_property
    def steps(self) -> pl.DataFrame:
        """Optimizer steps: no rows, since logs are read for their evaluations alone."""
        return pl.DataFrame(schema={**RUN, **SCHEMAS["steps"]})

    @cached_property
    def frames(self) -> Frames:
        """Data of the charts."""
        from harness.report.frames.log_frames import log_frames

        return log_frames(self.comparison.experiment, self.records, self.comparison)

    def __repr__(self) -> str:
        return "\n".join([*self.logs.lines, super().__repr__()])


def open_curves(
    tables: Tables | pl.DataFrame, reading: LogReading | None = None, **options: Any
) -> OpenedCurves:
    """Read logs and judge them: frames, paths of tables, or logs of other tools.

    reading: names of columns and the like, for `read_logs`. options: those of `compare_curves`, such as
    control, decayed, unit. Raises UserError for logs that cannot be read or compared.
    """
    paths = [tables] if isinstance(tables, pl.DataFrame | Path | str) else tables
    logs = read_logs(paths, reading or LogReading())
    inputs = read_curve_inputs(logs, **options)
    return OpenedCurves(logs, inputs.runs, judge(inputs))


def _run_size(record: RunRecord | None) -> tuple[int | None, int | None, float | None]:
    """Return parameters, tokens and FLOPs of a run; None for what is not known."""
    if record is None:
        return None, None, None
    facts, tokens = record.provenance.facts, record.provenance.tokens
    return facts.non_embedding or None, tokens, tokens * facts.flops_per_token or None


def _evals(record: RunRecord, evals: Evals, share: float | None) -> pl.DataFrame:
    """Return the evaluations of a run or branch, with the scale, variant and seed of the run."""
    provenance = record.provenance
    labels = {"scale": provenance.scale, "variant": provenance.variant, "seed": provenance.seed}
    types = {name: kind for name, kind in SCHEMAS["evals"].items() if name in evals.columns}
    rows = pl.DataFrame({name: evals.columns[name] for name in types}).cast(types)  # pyright: ignore
    return rows.with_columns(
        *(pl.lit(value, RUN[name]).alias(name) for name, value in labels.items()),
        pl.lit(share, pl.Float64).alias("branch"),
    )
