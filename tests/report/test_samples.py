"""What a sweep of images shows beside its losses: distances, grids, and losses in their own unit."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from harness.compare import compare
from harness.core.atomic_files import read_checksummed_json, write_bytes, write_checksummed_json, write_json
from harness.core.png import encode_png
from harness.launcher.runs import Run
from harness.launcher.stages.summary import design_power
from harness.records.run.config_file import read_config
from harness.records.run.provenance import read_provenance
from harness.records.run.sample_quality import SampleQuality, read_sample_quality, write_sample_quality
from harness.report.charts.save_images import draw_pictures
from harness.report.frames.sweep_frames import read_frames
from harness.report.page.render import render_page, write_report
from harness.report.tables import comparison_tables as comparison
from harness.report.tables.markdown import markdown
from harness.report.tables.terminal import print_comparison
from tests.report.conftest import sweep_of

UNIT = "mean squared error a value"
DISTANCES = {"mha": (10.0, 12.0, 14.0), "hybrid": (8.0, 11.0, 11.0)}


def grid(*names) -> bytes:
    """A picture of its own for each run."""
    text = "/".join(map(str, names)).encode()
    return encode_png(np.frombuffer(text, np.uint8)[None, :, None])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A sweep whose runs left samples."""
    sweep = sweep_of(tmp_path_factory.mktemp("images"), ("mha", "hybrid"))
    for run in sweep.runs():
        record = read_checksummed_json(run.run)
        assert record
        record["facts"]["loss_unit"] = UNIT
        write_checksummed_json(run.run, record)
        distance = DISTANCES[record["variant"]][record["seed"] % 3]
        write_sample_quality(run, SampleQuality("8 strokes", 64, 16, distance, 1.5))
        write_bytes(run.sample_grid, grid(record["scale"], record["variant"], record["seed"]))
    return sweep


def test_distances_are_means_over_seeds_and_paired_with_the_control(images):
    found = compare(images)
    control, other = found.samples[:2]
    assert (control.variant, other.variant) == ("mha", "hybrid")
    seeds = control.seeds
    mean = {name: np.mean([each[seed % 3] for seed in range(seeds)]) for name, each in DISTANCES.items()}
    assert control.distance == pytest.approx(mean["mha"])
    assert control.delta is None
    assert other.delta.mean == pytest.approx(mean["hybrid"] - mean["mha"])
    assert other.delta.mean is not None
    assert other.delta.low is not None
    assert other.delta.high is not None
    assert other.delta.low < other.delta.mean < other.delta.high
    assert (other.floor, other.count, other.delta.n) == (1.5, 64, seeds)
    assert len(found.samples) == 2 * len({run.scale for run in found.runs})


def test_a_run_without_its_samples_is_left_out(images, tmp_path):
    import shutil

    from harness.records.paths import SweepDir

    copy = SweepDir(tmp_path / "copy")
    shutil.copytree(images.path, copy.path)
    first = next(run for run in copy.runs() if "hybrid" in run.path.parts)
    write_json(first.samples, {"count": 3})
    assert read_sample_quality(first) is None
    (row,) = [r for r in compare(copy).samples if (r.scale, r.variant) == first.path.parts[-3:-1]]
    assert row.seeds == row.delta.n == compare(images).samples[0].seeds - 1


def test_they_stand_in_terminal_markdown_json_and_page(images):
    found = compare(images)
    text = io.StringIO()
    print_comparison(found, Console(file=text, width=140))
    page = write_report(images, found).read_text()
    for said in (text.getvalue(), markdown(found), page):
        assert "Frechet distance to real images on 8 strokes, 64 samples a run" in " ".join(said.split())
    assert json.loads(json.dumps(dataclasses.asdict(found.samples[0])))["features"] == "8 strokes"
    scales = read_frames(images, found).scales
    for variant in DISTANCES:
        content = base64.b64encode(grid(scales[-1], variant, 0)).decode()
        assert f"data:image/png;base64,{content}" in page


def test_grids_are_among_the_pictures(images, tmp_path):
    found = compare(images)
    content = read_frames(images, found)
    written = {path.name: path for path in draw_pictures(found, content, tmp_path)}
    assert written["samples_hybrid.png"].read_bytes() == grid(content.scales[-1], "hybrid", 0)


def test_a_damaged_grid_is_not_shown_and_the_page_says_so(images, tmp_path):
    found = compare(images)
    path = images.run(read_frames(images, found).scales[-1], "hybrid", 0).sample_grid
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    page = render_page(found, read_frames(images, found))
    path.write_bytes(whole)
    assert f"{path} is not shown: it is damaged" in page
    assert base64.b64encode(whole).decode() not in page


def test_losses_are_in_their_own_unit_everywhere(images):
    found = compare(images)
    assert found.loss_unit == UNIT
    page = write_report(images, found).read_text()
    assert f"training loss ({UNIT})" in page
    assert f"ΔL held-out ({UNIT})" in page
    assert "nats" not in page.partition('<script type="application/json"')[0]
    runs = [
        Run(read_config(run.config), record.facts, run)
        for run in images.runs()
        if (record := read_provenance(run))
    ]
    (sentence,) = design_power(images, runs).lines
    assert "mean squared error with" in sentence
    assert "nats" not in sentence


def test_a_sweep_of_text_has_nothing_of_it(sweep):
    found = compare(sweep)
    assert found.samples == ()
    assert not comparison.samples(found)
    assert comparison.samples_title(found) == ""
    assert "Samples" not in markdown(found)
    assert "training loss (nats a token)" in render_page(found, read_frames(sweep, found))
