"""A sweep opened in Python: its verdict, its runs and curves as polars frames, and its charts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.compare import Comparison, compare
from harness.compare.results.verdict_types import Ladder, Rung
from harness.core.errors import UserError, did_you_mean
from harness.core.number_format import plain_text
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance
from harness.records.sweep.find_sweep import read_sweep
from harness.report.tables import wording

if TYPE_CHECKING:
    from harness.report.charts.panels import Panel
    from harness.report.frames.sweep_frames import Frames

WHOLE_LADDER = "ladder"
"""Value of the column `scale` of the effects for all scales together."""
_RUN = {"scale": pl.String, "variant": pl.String, "seed": pl.Int64}
_RUNS = {
    **_RUN,
    "state": pl.String,
    **dict.fromkeys(("step", "steps", "parameters", "tokens"), pl.Int64),
    **dict.fromkeys(("flops", "loss"), pl.Float64),
    **dict.fromkeys(("problem", "path"), pl.String),
}
_EFFECTS = {
    "scale": pl.String,
    "variant": pl.String,
    "n": pl.Int64,
    **dict.fromkeys(("mean", "low", "high", "p", "p_holm", "k", "k_low", "k_high"), pl.Float64),
    "decision": pl.String,
    "flags": pl.List(pl.String),
}


@dataclass(frozen=True)
class OpenedSweep:
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
        return pl.DataFrame(rows, schema=_RUNS, orient="row")

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
        return pl.concat(tables)

    @cached_property
    def steps(self) -> pl.DataFrame:
        """Optimizer steps of all runs, one row per step. This is the largest frame by far."""
        return pl.concat([_curve(run, "steps", run) for run in self.sweep.runs()])

    @cached_property
    def effects(self) -> pl.DataFrame:
        """Numbers of the verdict: one row per scale and variant, then one per ladder (scale `ladder`).

        mean, low, high, p: treatment minus control (in the sweep's unit; None on ladders, since gaps are not
        compared across scales); p_holm; k, k_low, k_high: the compute multiplier; decision; flags.
        """
        rungs = [
            _effect_row(r, r.scale)
            | {"n": r.n, "p": r.p, "p_holm": r.p_holm}
            | {"mean": r.delta.mean, "low": r.delta.low, "high": r.delta.high}
            for r in self.comparison.rungs
        ]
        ladders = [_ladder_row(item) for item in self.comparison.ladder]
        return pl.DataFrame([*rungs, *ladders], schema=_EFFECTS)

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """Names of the charts of this sweep that have data, for `figure`."""
        return tuple(self._charts)

    def figure(self, name: str) -> Panel:
        """Return a chart of the report as an altair chart in its theme. Raises UserError for another name."""
        if name not in self._charts:
            raise UserError(f"figure={name}: no such chart; {did_you_mean(name, self.figures)}")
        from harness.report.charts import theme

        config = theme.vega_config(theme.LIGHT, background=theme.LIGHT["page"])
        return self._charts[name].properties(config=config)

    @cached_property
    def frames(self) -> Frames:
        """Data of the charts."""
        from harness.report.frames.sweep_frames import read_frames

        return read_frames(self.sweep, self.comparison)

    @cached_property
    def _charts(self) -> dict[str, Panel]:
        from harness.report.charts import panels

        return panels.panel_charts(self.comparison, self.frames)

    def __repr__(self) -> str:
        return "\n".join([*wording.verdict_lines(self.comparison), *_state_counts(self)])

    def _repr_html_(self) -> str:
        sentences = wording.verdict_lines(self.comparison)
        verdict = "".join(f"<p><b>{escape(sentence)}</b></p>" for sentence in sentences)
        return f"{verdict}<p>{escape(' '.join(_state_counts(self)))}</p>{self.effects._repr_html_()}"


def open_sweep(path: Path | str) -> OpenedSweep:
    """Read a sweep at a path or URL, finished or not, and judge it. Raises UserError if there is none."""
    sweep = read_sweep(path)
    return OpenedSweep(sweep, compare(sweep))


def _curve(rows: RunDir, kind: str, run: RunDir) -> pl.DataFrame:
    """Return the rows of a run or a branch, with the scale, variant and seed of the run."""
    scale, variant, seed = run.path.parts[-3:]
    digits = seed.removeprefix("seed")
    labels = {"scale": scale, "variant": variant, "seed": int(digits) if digits.isdigit() else None}
    columns = [pl.lit(value, _RUN[name]).alias(name) for name, value in labels.items()]
    return read_curve(rows, kind).select(*columns, pl.all())


def _ladder_row(ladder: Ladder) -> dict:
    """Return the row of all scales: k pooled over them, with its own p, and the decision at the largest."""
    return _effect_row(ladder, WHOLE_LADDER) | {"n": ladder.k and ladder.k.n, "p": ladder.k and ladder.k.p}


def _effect_row(result: Rung | Ladder, scale: str) -> dict:
    k = result.k
    multiplier = {"k": k and k.k, "k_low": k and k.low, "k_high": k and k.high}
    verdict = {"decision": result.decision.value, "flags": list(result.flags)}
    return {"scale": scale, "variant": result.variant, **multiplier, **verdict}


def _state_counts(opened: OpenedSweep) -> list[str]:
    """Return a line such as `attention: 27 runs (27 finished)`."""
    counts = wording.state_counts(opened.comparison.runs)
    return [f"{plain_text(opened.comparison.experiment)}: {len(opened.comparison.runs)} runs ({counts})"]
