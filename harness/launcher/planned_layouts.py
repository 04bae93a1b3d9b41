"""Layouts of a plan (`engine.plan`) that a sweep trains in: each run takes those of its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema.run import Config, Remat
from harness.core.atomic_files import read_checksummed_json
from harness.core.errors import UserError
from harness.core.paths import local_path
from harness.estimate.layouts import Layout, with_layout
from harness.launcher.runs import Run


@dataclass(frozen=True)
class PlannedLayout:
    """Layout of one run in a plan, and the sizes that it was planned for."""

    layout: Layout | None
    """None: the run fits nowhere."""
    parameters: int
    batch: int
    """Sequences of a step."""
    verdict: str
    """Reason why the run misses the plan; empty: it does not."""


def with_planned_layouts(configs: Sequence[Config]) -> list[Config]:
    """Return the configs, each with the mesh, micro-batches and remat of its run in the plan that
    `engine.plan` names; unchanged without one. Raises UserError for a file that is no plan, for a run that it
    lacks, and for one that it has of another batch."""
    place = configs[0].engine.plan
    if place is None:
        return [*configs]
    planned = _read_layouts(place)
    return [_with_layout(config, planned, place) for config in configs]


def check_planned_sizes(runs: Sequence[Run]) -> None:
    """Raise UserError for a run whose model has another size than the one of its name in the plan."""
    place = runs[0].config.engine.plan
    if place is None:
        return
    planned = _read_layouts(place)
    for run in runs:
        if planned[run.name].parameters != run.facts.parameters:
            sizes = f"{planned[run.name].parameters:,} parameters", f"{run.facts.parameters:,}"
            raise UserError(_other_size(place, run.name, *sizes))


def _with_layout(config: Config, planned: Mapping[str, PlannedLayout], place: str) -> Config:
    name = f"{config.scale.name}/{config.variant.name}/seed{config.seed}"
    if name not in planned:
        first = ", ".join([*planned][:3])
        more_runs = f" and {len(planned) - 3} more" if len(planned) > 3 else ""
        raise UserError(
            f"engine.plan={place} has no run {name}; it has {first}{more_runs}. Make the plan again, "
            "with the overrides of the sweep."
        )
    row = planned[name]
    if row.batch != config.scale.batch:
        sizes = f"a batch of {row.batch:,} sequences", f"{config.scale.batch:,}"
        raise UserError(_other_size(place, name, *sizes))
    if row.layout is None:
        raise UserError(f"engine.plan={place} has no layout for {name}: {row.verdict}")
    return with_layout(config, row.layout)


def _other_size(place: str, name: str, planned_size: str, size: str) -> str:
    return (
        f"engine.plan={place} has {name} with {planned_size}, and this command with {size}. Make the plan "
        "again, with the overrides of the sweep."
    )


def _read_layouts(place: str) -> dict[str, PlannedLayout]:
    """Read the layouts of a plan by run. Raises UserError."""
    path = Path(local_path(place, "copy it to this machine", "engine.plan=")).expanduser()
    content = read_checksummed_json(path)
    try:
        return {row["name"]: _to_layout(row) for row in (content or {})["runs"]}
    except (KeyError, TypeError, ValueError):
        trouble = "is not there" if not path.exists() else "is no plan, or damaged"
        raise UserError(
            f"engine.plan={place} {trouble}. Give the plan.json that `harness plan ... --html` writes, or a "
            "file with what `harness plan ... --json` prints."
        ) from None


def _to_layout(row: Mapping[str, Any]) -> PlannedLayout:
    layout = row["layout"] and Layout(**{**row["layout"], "remat": Remat(row["layout"]["remat"])})
    sizes = int(row["parameters"]), int(row["batch"])
    if layout and not all(isinstance(n, int) and n > 0 for n in dataclasses.astuple(layout)[:-1]):
        raise ValueError("an axis is no count")
    return PlannedLayout(layout or None, *sizes, str(row["verdict"]))
