"""How far the samples of a finished run of images are from real ones: `samples.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.core.atomic_files import read_sealed, write_sealed
from harness.records.paths import RunDir


@dataclass(frozen=True)
class Samples:
    features: str
    """What distances are taken in, in words."""
    count: int
    """Samples, and as many held-out images. Distances are biased upwards, the more so the fewer these are."""
    steps: int
    distance: float
    """Squared Frechet distance of the samples' features to those of all training images."""
    floor: float
    """The same of the held-out images: what real ones get at this count."""


def write_record(run: RunDir, record: Samples) -> None:
    write_sealed(run.samples, dataclasses.asdict(record))


def read_record(run: RunDir) -> Samples | None:
    """None where there is none, or none that can be read."""
    content = read_sealed(run.samples)
    try:
        return Samples(**content) if content else None
    except TypeError:
        return None
