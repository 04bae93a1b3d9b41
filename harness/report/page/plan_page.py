"""Section of a plan in a report, or a page of its own before anything was trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.report.charts import panels
from harness.report.charts.plan_charts import plan_charts
from harness.report.frames.saved_plan import PlanSection, SavedPlan
from harness.report.page.html import chart, document, escape_text, fold, paragraph, section, table, top_bar
from harness.report.tables.text_table import narrow_table

CHART_TITLES = {
    "plan_partition": "Chips by run",
    "plan_memory": "Memory by part",
    "plan_timeline": "When the runs end",
}


def write_plan_page(sweep: SweepDir, plan: SavedPlan) -> Path:
    """Write `report.html` of a sweep that has no runs yet, and return its path."""
    specs = panels.to_specs(plan_charts(plan))
    title = f"{sweep.path.name}: plan"
    heading = escape_text(f"Plan on {plan.machine}")
    header = f'<header>{top_bar(sweep.path.name)}<h1 id="verdict">{heading}</h1></header>'
    body = f"{header}<main>{plan_section(plan, set(specs))}</main>"
    atomic_files.write_text(sweep.report, document(title, body, specs))
    return sweep.report


def plan_section(plan: SavedPlan, chart_names: set[str]) -> str:
    """Return the charts and the printed sections of a plan."""
    titles = {name: title for name, title in CHART_TITLES.items() if name in chart_names}
    charts = [f"<h3>{title}</h3>{chart(name, chart_names)}" for name, title in titles.items()]
    texts = [piece for part in plan.parts for piece in _section_html(part)]
    return section("Plan", plan.command, *charts, *texts)


def _section_html(part: PlanSection) -> Iterator[str]:
    """Yield a section as the terminal shows it, with constant columns explained below the table."""
    if part.folded:
        yield fold(escape_text(part.title), part.content)
    if part.folded or not (part.content or part.lines):
        return
    narrow, constant = narrow_table(part.content)
    yield f"<h3>{escape_text(part.title)}</h3>{table(narrow)}{paragraph(constant, 'caption')}"
    yield "".join(paragraph(line, "note") for line in part.lines)
