"""Sample grids of image models: one per variant, of its first seed at its largest scale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from harness.core import atomic_files
from harness.core.paths import file_name, within_folder
from harness.records.run.sample_quality import read_sample_grid
from harness.report.frames.sweep_frames import Frames


def read_grids(content: Frames) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a PNG for each variant; equal seeds share labels and noise. A grid of `outward_links`
    counts as missing."""
    for variant in content.variants:
        for scale in reversed([*content.scales, *content.other_scales]):
            runs = [r for r in content.runs if (r.record.scale, r.record.variant) == (scale, variant)]
            ordered = sorted(runs, key=lambda run: run.record.seed)
            pictures = (read_sample_grid(run.path) for run in ordered)
            if picture := next(filter(None, pictures), None):
                yield f"{variant} at {scale}", picture
                break


def outward_links(content: Frames) -> Iterator[str]:
    """Yield a sentence for each grid that is not shown because it is damaged or a link out of its run."""
    for run in content.runs:
        grid = run.path.sample_grid
        try:
            within_folder(grid)
        except OSError as error:
            yield f"{grid} is not shown: {error.strerror}."
        else:
            if grid.exists() and read_sample_grid(run.path) is None:
                yield f"{grid} is not shown: it is damaged. Repeat the sweep command, which draws it again."


def write_grids(content: Frames, folder: Path) -> list[Path]:
    """Write each grid as `samples_<variant>.png` and return the paths."""
    paths = []
    for sentence in outward_links(content):
        print(sentence, file=sys.stderr)
    for name, picture in read_grids(content):
        path = folder / f"samples_{file_name(name.partition(' at ')[0])}.png"
        atomic_files.write_bytes(path, picture)
        paths.append(path)
    return paths
