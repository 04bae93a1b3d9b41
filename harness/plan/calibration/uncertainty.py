"""Unknowns of a published or planned run, which widen the interval of its predicted step time."""

from __future__ import annotations

from harness.estimate.calibration import KNOWN_CHIP_PREFIXES
from harness.plan.calibration.published_run import PublishedRun

REMEMBERED_WEIGHT = 0.5
"""Weight of a row with a value that was remembered, not read."""


def uncertainty_sources(run: PublishedRun) -> tuple[str, ...]:
    """Return the keys of UNCERTAINTY that apply to a run."""
    sources = {
        "form": True,
        "layout": bool({"layout", "layers", "d_model", "batch"} & {*run.assumed_columns}),
        "chip": "chip" in run.assumed_columns or not run.chip.name.startswith(KNOWN_CHIP_PREFIXES),
        "precision": run.model.precision.matmul_dtype == "fp4",
        "experts": bool(run.model.experts),
        "remembered": bool(run.remembered_notes),
        "remat": "remat" in run.assumed_columns,
    }
    return tuple(key for key, holds in sources.items() if holds)
