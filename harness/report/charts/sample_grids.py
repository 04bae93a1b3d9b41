"""Sample grids of image models: one per variant, of its first seed at its largest scale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from harness.core import atomic_files
from harness.core.paths import file_name, within_folder
from harness.report.frames.sweep_frames import Frames, RecordedRun


def read_grids(content: Frames) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a PNG for each variant; equal seeds share labels and noise. A link that leads out of
    its run counts as missing (`outward_links`)."""
    for variant in content.variants:
        for scale in reversed([*content.scales, *content.other_scales]):
            runs = [r for r in content.runs if (r.record.scale, r.record.variant) == (scale, variant)]
            pictures = map(_read_grid, sorted(runs, key=lambda run: run.record.seed))
            if picture := next(filter(None, pictures), None):
                yield f"{variant} at {scale}", picture
                break


def _read_grid(run: RecordedRun) -> bytes | None:
    try:
        return within_folder(run.path.sample_grid).read_bytes()
    except OSError:
        return None


def outward_links(content: Frames) -> Iterator[str]:
    """Yield a sentence for each grid that is not shown because it is a link out of its run."""
    for run in content.runs:
        try:
            within_folder(run.path.sample_grid)
        except OSError as error:
            yield f"{run.path.sample_grid} is not shown: {error.strerror}."


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
