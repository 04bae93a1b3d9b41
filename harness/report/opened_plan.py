"""A plan opened in Python: its runs as a polars frame, its printed sections, and its charts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.core.number_format import plain_text
from harness.report.chart_choice import choose_chart
from harness.report.frames.saved_plan import PlanSection, SavedPlan, to_plan

if TYPE_CHECKING:
    from harness.report.charts.panels import Panel

TEXT_WIDTH = 100
"""Columns of the plan as text."""
FIGURES = {"chips": "plan_partition", "memory": "plan_memory", "timeline": "plan_timeline"}
"""Chart of a report by the name that `figure` takes."""
_INTERVALS = ("step_seconds", "mfu", "days", "gigawatt_hours")
_RUNS = {
    "name": pl.String,
    "variant": pl.String,
    **dict.fromkeys(("parameters", "active_parameters", "tokens"), pl.Int64),
    "flops_per_token": pl.Float64,
    "kind": pl.String,
    **dict.fromkeys(("chips", "devices"), pl.Int64),
    **{f"{key}{end}": pl.Float64 for key in _INTERVALS for end in ("", "_low", "_high")},
    "memory": pl.Float64,
    "memory_limit": pl.Float64,
    "verdict": pl.String,
}


class OpenedPlan:
    """Plan of a sweep, on this machine or on a cluster that is described."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Open the content of `harness plan --json`."""
        self.content = content
        """The content of `harness plan --json`: runs, cluster, power, bets, page."""

    @cached_property
    def runs(self) -> pl.DataFrame:
        """Row per run: name, variant, parameters, tokens, FLOPs a token, kind and number of chips; seconds of
        a step, MFU, days and GWh with their intervals; bytes of the fullest chip, and of those a plan may
        use; why the run misses the plan. Null for what is not known."""
        variants = self.content["page"]["runs"]
        rows = [_run_row(run, variants[run["name"]]["variant"]) for run in self.content["runs"]]
        return pl.DataFrame(rows, schema=_RUNS)

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """Names of the charts that have data, for `figure`."""
        return tuple(name for name, chart in FIGURES.items() if chart in self._charts)

    def figure(self, name: str) -> Panel:
        """Return a chart as an altair chart: chips, memory or timeline. Raises UserError for another name."""
        return choose_chart(name, {name: self._charts[FIGURES[name]] for name in self.figures})

    @cached_property
    def _charts(self) -> dict[str, Any]:
        from harness.report.charts.plan_charts import plan_charts

        return plan_charts(self._saved)

    @cached_property
    def _saved(self) -> SavedPlan:
        return to_plan(self.content)

    @property
    def _sections(self) -> list[PlanSection]:
        return [part for part in self._saved.parts if not part.folded]

    def __repr__(self) -> str:
        from rich.console import Console

        from harness.report.tables.plan_sections import print_sections

        text = io.StringIO()
        console = Console(file=text, width=TEXT_WIDTH, color_system=None, force_jupyter=False)
        print_sections(self._sections, console)
        return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())

    def _repr_html_(self) -> str:
        from harness.report.page.notebook import html_paragraphs, html_table
        from harness.report.tables.text_table import narrow_table

        parts = []
        for section in self._sections:
            if not (section.content or section.lines):
                continue
            table, constant = narrow_table(section.content)
            lines = [line for line in (constant, *section.lines) if line]
            title = html_paragraphs([plain_text(section.title)], bold=True)
            parts.append(title + html_table(table) + html_paragraphs(lines))
        return "".join(parts)


def _run_row(run: Mapping[str, Any], variant: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: run.get(name) for name in _RUNS} | {"variant": variant}
    for key in _INTERVALS:
        number = run[key] or {}
        row |= {key: number.get("value"), f"{key}_low": number.get("low"), f"{key}_high": number.get("high")}
    amounts = [part["value"] for part in run["memory"].values()]
    return row | {"memory": sum(amounts) if amounts else None}
