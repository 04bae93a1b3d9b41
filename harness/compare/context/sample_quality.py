"""How far samples of images are from real ones, by variant: what each run measured at its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import SampleRow
from harness.compare.stats.paired_effects import paired_effect
from harness.records.run.sample_quality import Samples, read_record

Found = dict[int, Samples]
"""By seed."""


def sample_rows(runs: Sequence[RunRecord], scales: Sequence[str], control: str) -> tuple[SampleRow, ...]:
    """One row a scale and variant, the control first; none for sweeps of text."""
    found: dict[tuple[str, str], Found] = {}
    for run in runs:
        if run.complete and run.directory is not None and (record := read_record(run.directory)):
            scale, variant, seed = run.key
            found.setdefault((scale, variant), {})[seed] = record
    ordered = sorted(found, key=lambda key: (scales.index(key[0]), key[1] != control, key[1]))
    return tuple(_row(*key, found[key], found.get((key[0], control)), control) for key in ordered)


def _row(scale: str, variant: str, own: Found, base: Found | None, control: str) -> SampleRow:
    first = next(iter(own.values()))
    seeds = sorted(own.keys() & (base or {}).keys())
    return SampleRow(
        scale=scale,
        variant=variant,
        seeds=len(own),
        distance=float(np.mean([each.distance for each in own.values()])),
        floor=float(np.mean([each.floor for each in own.values()])),
        delta=None
        if variant == control or not base
        else paired_effect([base[seed].distance for seed in seeds], [own[seed].distance for seed in seeds]),
        count=first.count,
        features=first.features,
    )
