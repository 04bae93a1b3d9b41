"""Samples of an image run: their distances from real images, `samples.json`, and the grid `samples.png`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.core.paths import within_folder
from harness.core.png import is_intact_png
from harness.records.paths import RunDir
from harness.records.typed_values import parse_record


@dataclass(frozen=True)
class SampleQuality:
    """Content of `samples.json`."""

    features: str
    """Description of the feature space of the distances."""
    count: int
    """Number of samples, and of held-out images. The upward bias of the distances grows as it falls."""
    steps: int
    distance: float
    """Squared Frechet distance between the features of the samples and of all training images."""
    floor: float
    """Squared Frechet distance of the held-out images, which is the value of real images at this count."""


def write_sample_quality(run: RunDir, record: SampleQuality) -> None:
    """Write `samples.json` with a checksum."""
    write_checksummed_json(run.samples, dataclasses.asdict(record))


def read_sample_quality(run: RunDir) -> SampleQuality | None:
    """Return the record; None if it is missing or cannot be read."""
    return parse_record(SampleQuality, read_checksummed_json(run.samples), finite=False)


def read_sample_grid(run: RunDir) -> bytes | None:
    """Return the PNG; None if it is missing, damaged, or a link out of the run."""
    try:
        content = within_folder(run.sample_grid).read_bytes()
    except OSError:
        return None
    return content if is_intact_png(content) else None
