"""`harness plan --html --pictures`: save the plan beside its sweep and show it in the sweep's report."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cli.views.plan import short_names
from harness.compare.results.to_json import to_json
from harness.launcher.runs import Run
from harness.plan.plan_types import SweepPlan
from harness.records.paths import SweepDir
from harness.report.frames.saved_plan import PlanSection, SavedPlan, read_plan, save_plan


def page_content(
    overrides: Sequence[str], plan: SweepPlan, runs: Sequence[Run], sections: Sequence[PlanSection]
) -> dict[str, Any]:
    """Return what a page shows beside the numbers: the command, names of runs, and the printed sections."""
    groups, seeds = short_names(plan.runs), Counter(_name_without_seed(run.name) for run in plan.runs)
    names = {
        planned.name: {
            "name": planned.name if seeds[stem := _name_without_seed(planned.name)] > 1 else stem,
            "group": groups.get(planned.name, ""),
            "variant": run.config.variant.name,
        }
        for planned, run in zip(plan.runs, runs, strict=True)
    }
    command = shlex.join(["harness", "plan", *overrides])
    return {"command": command, "runs": names, "parts": to_json(sections)}


def _name_without_seed(name: str) -> str:
    return name.rpartition("/")[0]


def write_plan(sweep: SweepDir, content: dict[str, Any], *, html: bool, pictures: bool) -> None:
    """Save the plan and write the requested files. Print their paths to standard error."""
    save_plan(sweep, content)
    plan = read_plan(sweep)
    assert plan is not None
    paths = [_write_page(sweep, plan)] if html else []
    if pictures:
        paths += _write_pictures(sweep, plan)
    print(*paths, sep="\n", file=sys.stderr)


def _write_page(sweep: SweepDir, plan: SavedPlan) -> Path:
    """Write the sweep's report with the plan in it, or a page of the plan alone if no run exists."""
    if not any(sweep.runs()):
        from harness.report.page.plan_page import write_plan_page  # plotting takes a second to import

        return write_plan_page(sweep, plan)
    from harness.compare import compare
    from harness.report.page.render import write_report

    return write_report(sweep, compare(sweep))


def _write_pictures(sweep: SweepDir, plan: SavedPlan) -> list[Path]:
    from harness.report.charts.panels import to_specs
    from harness.report.charts.plan_charts import plan_charts
    from harness.report.charts.save_images import write_picture

    folder, specs = sweep.path / "pictures", to_specs(plan_charts(plan))
    return [path for name, spec in specs.items() for path in write_picture(spec, folder, name)]
