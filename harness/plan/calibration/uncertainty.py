"""Unknowns of a published or planned run, which widen the interval of its predicted step time."""

from __future__ import annotations

from harness.estimate.calibration import UNCERTAINTY, model_doubts
from harness.plan.calibration.published_run import PublishedRun

REMEMBERED_WEIGHT = 0.5
"""Weight of a row with a value that was remembered, not read."""


def uncertainty_sources(run: PublishedRun) -> tuple[str, ...]:
    """Return the keys of UNCERTAINTY that apply to a run: those of its step, and what a row leaves out."""
    assumed = {*run.assumed_columns}
    sources = {
        "layout": bool({"layout", "layers", "d_model", "batch"} & assumed),
        "chip": "chip" in assumed,
        "remembered": bool(run.remembered_notes),
        "remat": "remat" in assumed,
    }
    found = (*model_doubts(run.model, run.chip), *(key for key, holds in sources.items() if holds))
    return tuple(key for key in UNCERTAINTY if key in found)
