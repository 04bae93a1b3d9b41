"""Secondary results beside the verdict: forgetting, quality of image samples, and expert load."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from harness.compare.inputs.pairing import group_by_variant, one_run_per_seed
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import ExpertUse, ForgettingRow, SampleRow
from harness.compare.stats.paired_effects import effect_from_deltas, paired_effect
from harness.records.run.metrics import read_curve
from harness.records.run.sample_quality import SampleQuality, read_sample_quality

END_SHARE = 0.1
"""Fraction of a run's steps, counted from its end, over which the expert load is averaged."""
LossesBySeed = Mapping[int, tuple[float, float]]
"""Loss before the first step and loss at the end, for each seed."""
SamplesBySeed = dict[int, SampleQuality]
"""Sample-quality record of each seed."""


def forgetting_rows(
    runs: Sequence[RunRecord], scales: Sequence[str], control: str
) -> tuple[ForgettingRow, ...]:
    """Build one row per scale, variant and evaluated domain without training examples, the control first.

    Only finished runs that start from a checkpoint count. The difference to the control pairs the changes
    of one seed. The intervals are not corrected for multiple testing.
    """
    rows = []
    finetuned_runs = [run for run in runs if run.provenance.facts.base]
    for scale in scales:
        groups = group_by_variant(finetuned_runs, scale, control)
        for name, variant_runs in groups.items():
            for domain in untrained_domains(variant_runs):
                losses = _losses(variant_runs, domain), _losses(groups.get(control, []), domain)
                rows += [_forgetting_row(scale, name, domain, *losses, name == control)] if losses[0] else []
    return tuple(rows)


def untrained_domains(runs: Sequence[RunRecord]) -> list[str]:
    """Return the domains that the runs are evaluated on but draw no example from."""
    draws = runs[0].provenance.facts.draws if runs else {}
    return sorted(domain for domain, count in draws.items() if not count)


def _losses(runs: Sequence[RunRecord], domain: str) -> LossesBySeed:
    losses = {}
    for seed, run in one_run_per_seed(runs).items():
        start, final = run.evals.at_start, run.evals.final
        if run.complete and final and domain in start and domain in final.by_domain:
            losses[seed] = start[domain], final.by_domain[domain]
    return losses


def _forgetting_row(
    scale: str, variant: str, domain: str, losses: LossesBySeed, control_losses: LossesBySeed, control: bool
) -> ForgettingRow:
    starts, ends = np.array([*losses.values()]).T
    changes = {seed: end - start for seed, (start, end) in losses.items()}
    control_changes = {seed: end - start for seed, (start, end) in control_losses.items()}
    deltas = [change - control_changes[seed] for seed, change in changes.items() if seed in control_changes]
    loss_size = float(np.abs(starts).max())
    return ForgettingRow(
        scale=scale,
        variant=variant,
        control=control,
        domain=domain,
        start=float(starts.mean()),
        end=float(ends.mean()),
        change=effect_from_deltas([*changes.values()], loss_size=loss_size),
        delta=None if control or not deltas else effect_from_deltas(deltas, loss_size=loss_size),
    )


def sample_rows(runs: Sequence[RunRecord], scales: Sequence[str], control: str) -> tuple[SampleRow, ...]:
    """Build one row per scale and variant, the control first. Text sweeps have none."""
    samples: dict[tuple[str, str], SamplesBySeed] = {}
    for run in runs:
        if run.complete and run.directory is not None and (record := read_sample_quality(run.directory)):
            scale, variant, seed = run.key
            samples.setdefault((scale, variant), {})[seed] = record
    ordered = sorted(samples, key=lambda key: (scales.index(key[0]), key[1] != control, key[1]))
    return tuple(_sample_row(*k, samples[k], samples.get((k[0], control), {}), control) for k in ordered)


def _sample_row(
    scale: str, variant: str, samples: SamplesBySeed, control_samples: SamplesBySeed, control: str
) -> SampleRow:
    first = next(iter(samples.values()))
    seeds = sorted(samples.keys() & control_samples.keys())
    distances = ([records[seed].distance for seed in seeds] for records in (control_samples, samples))
    return SampleRow(
        scale=scale,
        variant=variant,
        seeds=len(samples),
        distance=float(np.mean([record.distance for record in samples.values()])),
        floor=float(np.mean([record.floor for record in samples.values()])),
        delta=paired_effect(*distances) if control_samples and variant != control else None,
        count=first.count,
        features=first.features,
    )


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
