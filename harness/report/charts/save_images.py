"""The panels as files for slides and papers: PNG and SVG from the page's own specifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vl_convert

from harness.compare.results.comparison import Comparison
from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.report.charts import panels, sample_grids, theme
from harness.report.frames.sweep_frames import Frames, read_frames

PNG_SCALE = 2
"""Pixels of a PNG for each of the specification."""


def write_pictures(sweep: SweepDir, comparison: Comparison, folder: Path) -> list[Path]:
    """Write `<panel>.png` and `<panel>.svg` of every panel into a folder; returns their paths."""
    return draw_pictures(comparison, read_frames(sweep, comparison), folder)


def draw_pictures(comparison: Comparison, content: Frames, folder: Path) -> list[Path]:
    """The same of what was read before."""
    specs = panels.panel_specs(comparison, content)
    paths = [path for name, spec in specs.items() for path in write_picture(spec, folder, name)]
    return [*paths, *sample_grids.write_grids(content, folder)]


def write_picture(spec: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg` and `<name>.png` of one specification; returns their paths."""
    config = theme.vega_config(theme.LIGHT, background=theme.LIGHT["page"])
    svg = vl_convert.vegalite_to_svg(spec, config=config)
    contents = {"svg": svg.encode(), "png": vl_convert.svg_to_png(svg, scale=PNG_SCALE)}
    paths = [folder / f"{name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        atomic_files.write_bytes(path, content)
    return paths
