"""A sweep opened in Python: its verdict, its runs and curves as polars frames, and its charts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.compare import Comparison, compare
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance
from harness.records.sweep.find_sweep import read_sweep
from harness.report.opened_comparison import RUN, RUNS, OpenedComparison

if TYPE_CHECKING:
    from harness.report.frames.sweep_frames import Frames


@dataclass(frozen=True, repr=False)
class OpenedSweep(OpenedComparison):
    """Verdict, runs, curves and charts of a sweep. Each is read once, when it is first used."""

    sweep: SweepDir
    comparison: Comparison

    @cached_property
    def runs(self) -> pl.DataFrame:
        """Row per run: scale, variant, seed, state, step, steps, parameters (non-embedding), tokens and
        model FLOPs of the whole run, loss (its end-of-run outcome, in the sweep's unit), problem, path."""
        rows = [
            (run.scale, run.variant, run.seed, run.state, run.step, run.steps,
             *self._run_size(run.path), run.outcome, run.problem, str(self.sweep.path / run.path))
            for run in self.comparison.runs
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=RUNS, orient="row")

    def _run_size(self, path: str) -> tuple[int | None, int | None, float | None]:
        record = read_provenance(RunDir(self.sweep.path / path))
        if record is None:
            return None, None, None
        return record.facts.non_embedding, record.tokens, record.tokens * record.facts.flops_per_token

    @cached_property
    def evals(self) -> pl.DataFrame:
        """Held-out evaluations of all runs, one row per run, step and domain. `branch` is the share of the
        tokens at which a cooldown branch ends, or None on rows of the run itself."""
        tables = []
        for run in self.sweep.runs():
            tables.append(_curve(run, "evals", run).with_columns(branch=pl.lit(None, pl.Float64)))
            tables += [
                _curve(branch, "evals", run).with_columns(branch=pl.lit(record.parent["share"], pl.Float64))
                for branch in run.branches()
                if (record := read_provenance(branch)) and record.parent
            ]
        return pl.concat(tables, how="diagonal")  # runs may have metrics of their own

    @cached_property
    def steps(self) -> pl.DataFrame:
        """Optimizer steps of all runs, one row per step. This is the largest frame by far."""
        return pl.concat([_curve(run, "steps", run) for run in self.sweep.runs()], how="diagonal")

    @cached_property
    def frames(self) -> Frames:
        """Data of the charts."""
        from harness.report.frames.sweep_frames import read_frames

        return read_frames(self.sweep, self.comparison)


def open_sweep(path: Path | str) -> OpenedSweep:
    """Read a sweep at a path or URL, finished or not, and judge it. Raises UserError if there is none."""
    sweep = read_sweep(path)
    return OpenedSweep(sweep, compare(sweep))


def _curve(rows: RunDir, kind: str, run: RunDir) -> pl.DataFrame:
    """Return the rows of a run or a branch, with the scale, variant and seed of the run."""
    scale, variant, seed = run.path.parts[-3:]
    digits = seed.removeprefix("seed")
    labels = {"scale": scale, "variant": variant, "seed": int(digits) if digits.isdigit() else None}
    columns = [pl.lit(value, RUN[name]).alias(name) for name, value in labels.items()]
    return read_curve(rows, kind).select(*columns, pl.all())
