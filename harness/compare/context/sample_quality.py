"""Quality of image samples by variant: the Frechet distances that each run measured at its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import SampleRow
from harness.compare.stats.paired_effects import paired_effect
from harness.records.run.sample_quality import SampleQuality, read_sample_quality

SamplesBySeed = dict[int, SampleQuality]
"""Sample-quality record of each seed."""


def sample_rows(runs: Sequence[RunRecord], scales: Sequence[str], control: str) -> tuple[SampleRow, ...]:
    """Build one row per scale and variant, the control first. Text sweeps have none."""
    samples: dict[tuple[str, str], SamplesBySeed] = {}
    for run in runs:
        if run.complete and run.directory is not None and (record := read_sample_quality(run.directory)):
            scale, variant, seed = run.key
            samples.setdefault((scale, variant), {})[seed] = record
    ordered = sorted(samples, key=lambda key: (scales.index(key[0]), key[1] != control, key[1]))
    return tuple(_row(*key, samples[key], samples.get((key[0], control), {}), control) for key in ordered)


def _row(
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
