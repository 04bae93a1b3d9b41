"""What fine-tuned runs lost of what their parents knew: held-out loss at the end against the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.compare.inputs.pairing import by_seed
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import ForgettingRow
from harness.compare.stats.estimates import Effect
from harness.compare.stats.paired_effects import effect_of

Losses = Mapping[int, tuple[float, float]]
"""By seed: the loss before the first step, and that at the end."""


def forgetting_rows(
    runs: Sequence[RunRecord], scales: Sequence[str], control: str
) -> tuple[ForgettingRow, ...]:
    """One row a scale, variant and domain that is evaluated and not trained on, the control first.

    Of runs that start from a checkpoint and are finished; without those there is no row. The difference to
    the control pairs the changes of one seed. Each interval stands for itself: no family is corrected for.
    """
    rows = []
    for scale in scales:
        here = [run for run in runs if run.provenance.scale == scale and run.provenance.facts.base]
        names = sorted({run.provenance.variant for run in here}, key=lambda name: (name != control, name))
        for name in names:
            own = [run for run in here if run.provenance.variant == name]
            reference = [run for run in here if run.provenance.variant == control]
            for domain in untrained(own):
                both = _losses(own, domain), _losses(reference, domain)
                rows += [_row(scale, name, domain, *both, name == control)] if both[0] else []
    return tuple(rows)


def untrained(runs: Sequence[RunRecord]) -> list[str]:
    """Domains that the runs are evaluated on and draw no example from."""
    draws = runs[0].provenance.facts.draws if runs else {}
    return sorted(domain for domain, drawn in draws.items() if not drawn)


def _losses(runs: Sequence[RunRecord], domain: str) -> Losses:
    found = {}
    for seed, run in by_seed(runs).items():
        start, final = run.evals.at_start, run.evals.final
        if run.complete and final and domain in start and domain in final.by_domain:
            found[seed] = start[domain], final.by_domain[domain]
    return found


def _row(
    scale: str, variant: str, domain: str, own: Losses, reference: Losses, control: bool
) -> ForgettingRow:
    starts, ends = np.array([*own.values()]).T
    pairs = [_change(own[seed]) - _change(reference[seed]) for seed in own if seed in reference]
    return ForgettingRow(
        scale=scale,
        variant=variant,
        control=control,
        domain=domain,
        start=float(starts.mean()),
        end=float(ends.mean()),
        change=_effect([_change(each) for each in own.values()], starts),
        delta=None if control or not pairs else _effect(pairs, starts),
    )


def _change(losses: tuple[float, float]) -> float:
    return losses[1] - losses[0]


def _effect(changes: Sequence[float], losses: np.ndarray) -> Effect:
    return effect_of(changes, size=float(np.abs(losses).max()))
