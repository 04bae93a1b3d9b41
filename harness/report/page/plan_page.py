"""A plan inside a report, or as a page of its own where nothing was trained yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.report.charts import panels
from harness.report.charts.plan_charts import plan_panels
from harness.report.frames.saved_plan import KeptPlan, Part
from harness.report.page.html import (
    chart_html,
    escape_text,
    folded_table,
    page_html,
    paragraph_html,
    section_html,
    table_html,
    top_bar,
)
from harness.report.tables.text_table import narrow_table

PICTURES = {
    "plan_partition": "Who has the chips",
    "plan_memory": "What fills their memory",
    "plan_timeline": "When the runs end",
}


def write_plan_page(sweep: SweepDir, plan: KeptPlan) -> Path:
    """Write `report.html` of a sweep of which nothing was trained, and return its path."""
    specs = panels.to_specs(plan_panels(plan))
    title = f"{sweep.path.name}: plan"
    body = (
        f'<header>{top_bar(sweep.path.name)}<h1 id="verdict">{escape_text(f"Plan on {plan.machine}")}</h1></header>'
        f"<main>{plan_section(plan, set(specs))}</main>"
    )
    atomic_files.write_text(sweep.report, page_html(title, body, specs))
    return sweep.report


def plan_section(plan: KeptPlan, drawn: set[str]) -> str:
    pictures = [
        f"<h3>{title}</h3>{chart_html(name, drawn)}" for name, title in PICTURES.items() if name in drawn
    ]
    said = [piece for part in plan.parts for piece in _part(part)]
    return section_html("Plan", plan.command, *pictures, *said)


def _part(part: Part) -> Iterator[str]:
    """As the terminal has it: what is the same in every row stands below."""
    if part.folded:
        yield folded_table(escape_text(part.title), part.content)
    if part.folded or not (part.content or part.lines):
        return
    narrow, same = narrow_table(part.content)
    yield f"<h3>{escape_text(part.title)}</h3>{table_html(narrow)}{paragraph_html(same, 'caption')}"
    yield "".join(paragraph_html(line, "note") for line in part.lines)
