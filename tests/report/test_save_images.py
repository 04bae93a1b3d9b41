"""PNG and SVG of each panel."""

from __future__ import annotations

import re
import struct

from harness.report.charts.save_images import PNG_SCALE, draw_pictures
from harness.report.frames.sweep_frames import read_frames
from tests.report.conftest import sweep_of


def test_png_and_svg_of_each_panel_have_one_size(tmp_path, told):
    sweep = sweep_of(tmp_path / "sweep", ("mha", "hybrid", "short"), seeds=(0,))
    written = draw_pictures(told, read_frames(sweep, told), tmp_path / "pictures")
    assert [p.name for p in written] == [
        f"{name}.{suffix}" for name in ("ladder", "curves", "deltas") for suffix in ("svg", "png")
    ]
    for svg, png in zip(written[::2], written[1::2], strict=True):
        sizes = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg.read_text())
        assert sizes
        content = png.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
        for pixels, size in zip(struct.unpack(">II", content[16:24]), sizes.groups(), strict=True):
            assert pixels > 400
            assert abs(pixels - PNG_SCALE * float(size)) <= PNG_SCALE
