"""A comparison opened in Python: its verdict, its effects as a polars frame, and its charts."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from harness.compare import Comparison
from harness.compare.results.verdict_types import Ladder, Rung
from harness.core.number_format import plain_text
from harness.report.chart_choice import choose_chart
from harness.report.opened_pair import OpenedPair, find_rung
from harness.report.opened_verdict import OpenedVerdict
from harness.report.tables import wording
from harness.report.tables.text_table import explain_constant_columns

if TYPE_CHECKING:
    from harness.report.charts.panels import Panel
    from harness.report.frames.sweep_frames import Frames

WHOLE_LADDER = "ladder"
"""Value of the column `scale` of the effects for all scales together."""
FIGURES = {"ladder": "k", "deltas": "difference"}
"""Name for `figure` of each chart that is called otherwise in the page and among the pictures."""
RUN = {"scale": pl.String, "variant": pl.String, "seed": pl.Int64}
RUNS = {
    **RUN,
    "state": pl.String,
    **dict.fromkeys(("step", "steps", "parameters", "tokens"), pl.Int64),
    **dict.fromkeys(("flops", "loss"), pl.Float64),
    **dict.fromkeys(("problem", "path"), pl.String),
}
"""Columns of the frame of runs."""
_EFFECTS = {
    "scale": pl.String,
    "variant": pl.String,
    "n": pl.Int64,
    **dict.fromkeys(("mean", "low", "high", "p", "p_holm", "k", "k_low", "k_high"), pl.Float64),
    "decision": pl.String,
    "flags": pl.List(pl.String),
}


class OpenedComparison(ABC):
    """Verdict and charts of a sweep or of logs. Each is computed once, when it is first used."""

    comparison: Comparison

    @cached_property
    @abstractmethod
    def frames(self) -> Frames:
        """Data of the charts."""

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
        """Names of the charts that have data, for `figure`."""
        return tuple(self._charts)

    def figure(self, name: str) -> Panel:
        """Return a chart of the report as an altair chart in its theme: k, curves, difference, or another of
        `figures`. Raises UserError for another name."""
        return choose_chart(_current_figure(name), self._charts)

    @cached_property
    def _charts(self) -> dict[str, Panel]:
        from harness.report.charts import panels

        charts = panels.panel_charts(self.comparison, self.frames)
        return {FIGURES.get(name, name): chart for name, chart in charts.items()}

    @property
    def verdict(self) -> OpenedVerdict:
        """Decision on each treatment, its reason, and what would settle it."""
        return OpenedVerdict(self.comparison)

    def pair(self, variant: str, control: str | None = None, *, scale: str | None = None) -> OpenedPair:
        """Return a treatment beside the control, at a scale or at its largest. Raises UserError for a variant
        or a scale without a pair, and for a control that is not the sweep's."""
        return OpenedPair(self.comparison, find_rung(self.comparison, variant, control, scale), self.frames)

    def curves(self) -> pl.DataFrame:
        """Return the rows of the chart `curves`: scale, variant, seed, step, tokens, flops, device_seconds,
        loss (of training, in the unit of the sweep; of logs as logged) and smooth, its moving average. Long
        runs are thinned; `steps` has every step of a sweep."""
        return self.frames.losses

    def __repr__(self) -> str:
        return "\n".join([*wording.verdict_lines(self.comparison), *_state_counts(self)])

    def _repr_html_(self) -> str:
        from harness.report.page.notebook import html_paragraphs, html_table
        from harness.report.tables.comparison_tables import rungs

        verdict = html_paragraphs(wording.verdict_lines(self.comparison), bold=True)
        parts = [verdict, *map(html_paragraphs, [_state_counts(self)])]
        for ladder in self.comparison.ladder:
            table, constant = explain_constant_columns(rungs(self.comparison, ladder))
            title = plain_text(f"{ladder.variant} against {ladder.control}")
            parts += [html_paragraphs([title]), html_table(table), html_paragraphs(filter(None, [constant]))]
        return "".join(parts)


def _current_figure(name: str) -> str:
    """Return the name that a chart has now, with a warning if it was called otherwise in 0.2."""
    current = FIGURES.get(name, name)
    if current != name:
        warnings.warn(f"figure={name} is now called {current}.", DeprecationWarning, stacklevel=3)
    return current


def _ladder_row(ladder: Ladder) -> dict:
    """Return the row of all scales: k pooled over them, with its own p, and the decision at the largest."""
    return _effect_row(ladder, WHOLE_LADDER) | {"n": ladder.k and ladder.k.n, "p": ladder.k and ladder.k.p}


def _effect_row(result: Rung | Ladder, scale: str) -> dict:
    k = result.k
    multiplier = {"k": k and k.k, "k_low": k and k.low, "k_high": k and k.high}
    verdict = {"decision": result.decision.value, "flags": list(result.flags)}
    return {"scale": scale, "variant": result.variant, **multiplier, **verdict}


def _state_counts(opened: OpenedComparison) -> list[str]:
    """Return a line such as `attention: 27 runs (27 finished)`."""
    counts = wording.state_counts(opened.comparison.runs)
    return [f"{plain_text(opened.comparison.experiment)}: {len(opened.comparison.runs)} runs ({counts})"]
