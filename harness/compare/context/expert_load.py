"""How evenly the experts of each variant were used at the end of its runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import polars as pl

from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import ExpertUse
from harness.records.run.metrics import read_curve

END = 0.1
"""Share of a run's last steps that are averaged."""


def expert_uses(runs: Sequence[RunRecord], scales: Sequence[str]) -> tuple[ExpertUse, ...]:
    """One row a scale and variant with experts; empty where none has any."""
    variants = dict.fromkeys(run.provenance.variant for run in runs)
    found = (
        _use([run for run in runs if (run.provenance.scale, run.provenance.variant) == each], *each)
        for each in itertools.product(scales, variants)
    )
    return tuple(use for use in found if use is not None)


def _use(runs: Sequence[RunRecord], scale: str, variant: str) -> ExpertUse | None:
    ends = [end for run in runs if (end := _end(run)) is not None]
    if not ends:
        return None
    means = pl.concat(ends).mean()
    return ExpertUse(scale, variant, len(ends), means["expert_load"][0], means["expert_dropped"][0])


def _end(run: RunRecord) -> pl.DataFrame | None:
    """Mean load and drops of the last steps, one row; None for a run without experts."""
    facts = run.provenance.facts
    if run.directory is None or facts.active_parameters in (0, facts.non_embedding):
        return None
    curve = read_curve(run.directory, "steps").select("expert_load", "expert_dropped")
    return curve.tail(max(1, round(END * curve.height))).mean() if curve.height else None
