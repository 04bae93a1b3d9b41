"""How far the samples of a finished run of images are from real ones: `samples.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir


@dataclass(frozen=True)
class SampleQuality:
    features: str
    """What distances are taken in, in words."""
    count: int
    """Samples, and as many held-out images. Distances are biased upwards, the more so the fewer these are."""
    steps: int
    distance: float
    """Squared Frechet distance of the samples' features to those of all training images."""
    floor: float
    """The same of the held-out images: what real ones get at this count."""


def write_sample_quality(run: RunDir, record: SampleQuality) -> None:
    write_checksummed_json(run.samples, dataclasses.asdict(record))


def read_sample_quality(run: RunDir) -> SampleQuality | None:
    """None where there is none, or none that can be read."""
    content = read_checksummed_json(run.samples)
    try:
        return SampleQuality(**content) if content else None
    except TypeError:
        return None
