"""Expert load of each variant at the end of its runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import polars as pl

from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import ExpertUse
from harness.records.run.metrics import read_curve

END_SHARE = 0.1
"""Fraction of a run's steps, counted from its end, that is averaged."""


def expert_uses(runs: Sequence[RunRecord], scales: Sequence[str]) -> tuple[ExpertUse, ...]:
    """Build one row per scale and variant that has experts."""
    variants = dict.fromkeys(run.provenance.variant for run in runs)
    uses = (
        _expert_use([run for run in runs if (run.provenance.scale, run.provenance.variant) == key], *key)
        for key in itertools.product(scales, variants)
    )
    return tuple(use for use in uses if use is not None)


def _expert_use(runs: Sequence[RunRecord], scale: str, variant: str) -> ExpertUse | None:
    ends = [end for run in runs if (end := _mean_at_end(run)) is not None]
    if not ends:
        return None
    means = pl.concat(ends).mean()
    return ExpertUse(scale, variant, len(ends), means["expert_load"][0], means["expert_dropped"][0])


def _mean_at_end(run: RunRecord) -> pl.DataFrame | None:
    """Average expert load and dropped share over the last steps (one row); None for a run without experts."""
    facts = run.provenance.facts
    if run.directory is None or facts.active_parameters in (0, facts.non_embedding):
        return None
    curve = read_curve(run.directory, "steps").select("expert_load", "expert_dropped")
    return curve.tail(max(1, round(END_SHARE * curve.height))).mean() if curve.height else None
