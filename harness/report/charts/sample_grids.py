"""Sample grids of image models: one per variant, of its first seed at its largest scale."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

from harness.core import atomic_files
from harness.core.number_format import plain_text
from harness.report.frames.sweep_frames import Frames


def read_grids(content: Frames) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a PNG for each variant; equal seeds share labels and noise."""
    for variant in content.variants:
        for scale in reversed([*content.scales, *content.other_scales]):
            runs = [r for r in content.runs if (r.record.scale, r.record.variant) == (scale, variant)]
            pictures = [run.path.sample_grid for run in sorted(runs, key=lambda run: run.record.seed)]
            if picture_file := next((picture for picture in pictures if picture.is_file()), None):
                yield f"{variant} at {scale}", picture_file.read_bytes()
                break


def html_figures(content: Frames) -> list[str]:
    """Return the grids as HTML figures."""
    return [
        f'<figure><img alt="samples of {_escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"><figcaption>{_escape(name)}, guided</figcaption></figure>'
        for name, picture in read_grids(content)
    ]


def write_grids(content: Frames, folder: Path) -> list[Path]:
    """Write each grid as `samples_<variant>.png` and return the paths."""
    paths = []
    for name, picture in read_grids(content):
        path = folder / f"samples_{name.partition(' at ')[0]}.png"
        atomic_files.write_bytes(path, picture)
        paths.append(path)
    return paths


def _escape(text: str) -> str:
    return escape(plain_text(text))
