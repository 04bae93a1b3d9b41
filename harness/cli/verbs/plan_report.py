"""`harness plan --html --pictures`: a plan kept beside its sweep, and in the same report."""

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
from harness.report.frames.saved_plan import KeptPlan, Part, keep_plan, read_plan


def page_content(
    overrides: Sequence[str], sheet: SweepPlan, runs: Sequence[Run], said: Sequence[Part]
) -> dict[str, Any]:
    """What pages show of a plan beside its numbers: what was asked, names, what was said."""
    groups, seeds = short_names(sheet.runs), Counter(_stem(run.name) for run in sheet.runs)
    shown = {
        planned.name: {
            "name": planned.name if seeds[_stem(planned.name)] > 1 else _stem(planned.name),
            "group": groups.get(planned.name, ""),
            "variant": run.config.variant.name,
        }
        for planned, run in zip(sheet.runs, runs, strict=True)
    }
    command = shlex.join(["harness", "plan", *overrides])
    return {"command": command, "runs": shown, "parts": to_json(said)}


def _stem(name: str) -> str:
    """Without the seed."""
    return name.rpartition("/")[0]


def write_plan(sweep: SweepDir, content: dict[str, Any], *, html: bool, pictures: bool) -> None:
    """Keep the plan, and write what was asked for; where it is goes to standard error."""
    keep_plan(sweep, content)
    plan = read_plan(sweep)
    assert plan is not None
    written = [_page(sweep, plan)] if html else []
    if pictures:
        written += _pictures(sweep, plan)
    print(*written, sep="\n", file=sys.stderr)


def _page(sweep: SweepDir, plan: KeptPlan) -> Path:
    """The report of what was trained, the plan in it; else of the plan alone."""
    if not any(sweep.runs()):
        from harness.report.page.plan_page import (
            write_plan_page,  # the plotting stack costs a second to import
        )

        return write_plan_page(sweep, plan)
    from harness.compare import compare
    from harness.report.page.render import write_report

    return write_report(sweep, compare(sweep))


def _pictures(sweep: SweepDir, plan: KeptPlan) -> list[Path]:
    from harness.report.charts.panels import to_specs
    from harness.report.charts.plan_charts import plan_panels
    from harness.report.charts.save_images import write_picture

    folder, drawn = sweep.path / "pictures", to_specs(plan_panels(plan))
    return [path for name, spec in drawn.items() for path in write_picture(spec, folder, name)]
