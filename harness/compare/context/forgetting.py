"""Forgetting of fine-tuned runs: held-out loss at the end minus loss at the start, on untrained domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.compare.inputs.pairing import group_by_variant, one_run_per_seed
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import ForgettingRow
from harness.compare.stats.paired_effects import effect_from_deltas

LossesBySeed = Mapping[int, tuple[float, float]]
"""Loss before the first step and loss at the end, for each seed."""


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
                rows += [_row(scale, name, domain, *losses, name == control)] if losses[0] else []
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


def _row(
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
