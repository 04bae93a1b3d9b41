"""Overrides that train the layouts of a plan, in the terminal."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.cli.views.plan import short_names
from harness.estimate.layouts import layout_overrides
from harness.plan.plan_types import SweepPlan
from harness.report.frames.saved_plan import PlanSection


def layouts_section(plan: SweepPlan, arguments: Sequence[str], saved: Path) -> PlanSection:
    """Build the section: the overrides, per run where they differ, and how a sweep takes them from the plan
    that is saved at `saved`."""
    names = short_names(plan.runs)
    runs_by_overrides: dict[str, list[str]] = {}
    for run in plan.runs:
        if run.layout is not None and run.name in names:
            overrides = [text for text in layout_overrides(run.layout, run.batch) if not _is_one(text)]
            runs_by_overrides.setdefault(" ".join(overrides), []).append(names[run.name])
    if not runs_by_overrides:
        return PlanSection("Training")
    lines = [f"{', '.join(runs)}: {overrides}" for overrides, runs in runs_by_overrides.items()]
    command = shlex.join([*arguments, *_isolation(plan)])
    lines.append(
        f"`harness plan {command} --html` saves this plan as {saved}; with engine.plan={saved} "
        f"`harness sweep {command}` gives each run its layout."
    )
    return PlanSection("Overrides that train these layouts", lines=tuple(lines))


def _isolation(plan: SweepPlan) -> list[str]:
    """Return the override with which the runs of a block train one after the other, if the machine has no
    room for them side by side."""
    devices = Counter[str]()
    for run in plan.runs:
        scale, _, seed = run.name.split("/")
        devices[f"{scale}/{seed}"] += run.devices
    return ["engine.isolation=run"] if max(devices.values()) > plan.cluster.chips else []


def _is_one(override: str) -> bool:
    """Return whether an axis is not split, which is the default."""
    return override.startswith("mesh.") and override.endswith("=1")
