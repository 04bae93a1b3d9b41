"""Charts as PNG and SVG files for slides and papers, from the specifications of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vl_convert

from harness.compare.results.comparison import Comparison
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.paths import within_folder
from harness.report.charts import panels, sample_grids, theme
from harness.report.frames.sweep_frames import Frames

PNG_SCALE = 2
"""Pixels of a PNG per pixel of the specification."""


def draw_pictures(comparison: Comparison, content: Frames, folder: Path) -> list[Path]:
    """Write `<chart>.png` and `<chart>.svg` of every chart of a sweep into a folder and return the paths."""
    _check_folder(folder)
    specs = panels.panel_specs(comparison, content)
    paths = [path for name, spec in specs.items() for path in write_picture(spec, folder, name)]
    return [*paths, *sample_grids.write_grids(content, folder)]


def write_picture(spec: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg` and `<name>.png` of one specification and return the paths."""
    _check_folder(folder)
    config = theme.vega_config(theme.LIGHT, background=theme.LIGHT["page"])
    svg = vl_convert.vegalite_to_svg(spec, config=config)
    contents = {"svg": svg.encode(), "png": vl_convert.svg_to_png(svg, scale=PNG_SCALE)}
    paths = [folder / f"{name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        atomic_files.write_bytes(path, content)
    return paths


def _check_folder(folder: Path) -> None:
    """Raise UserError if the folder is a link that leads out of the sweep."""
    try:
        within_folder(folder)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: {error.strerror}. Remove the link, and repeat the command.") from error
