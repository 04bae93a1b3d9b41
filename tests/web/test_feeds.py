"""What the page shows of a sweep, beside what the report reads from the same directories."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.compare import compare
from harness.records.paths import SweepDir
from harness.records.run import metrics
from harness.records.run.run_lock import acquire, release
from harness.report.frames import sweep_frames
from harness.web.folder_feed import FolderFeed
from harness.web.pages import Pages
from harness.web.sweep_feed import SweepFeed
from tests.compare.synthetic import Recipe, write_sweep
from tests.web.simulated_sweep import START, SimulatedSweep


@pytest.fixture
def sim(tmp_path: Path) -> SimulatedSweep:
    return SimulatedSweep(tmp_path / "runs" / "trial")


def updated(feed: SweepFeed, now: float) -> dict:
    """Update until all is read and judged, and return the values by key."""
    while feed.update(now) or feed.is_judging:
        pass
    feed.update(now)
    keys = [change.key for change in feed.state.wait(0, 0)]
    return {key: value for key in keys if (value := feed.state.value(key)) is not None}


def check_like_report(sweep: SweepDir, values: dict) -> None:
    """Compare curves and differences with the frames of the report, which reads everything anew."""
    comparison = compare(sweep)
    frames = sweep_frames.read_frames(sweep, comparison)
    runs = frames.losses.partition_by("scale", "variant", "seed", as_dict=True)
    assert {key for key in values if key.startswith("curve/")} == {
        f"curve/{scale}/{variant}/seed{seed}" for (scale, variant, seed) in runs
    }
    for (scale, variant, seed), rows in runs.items():
        curve = values[f"curve/{scale}/{variant}/seed{seed}"]
        assert curve["s"] == rows["step"].to_list()
        assert curve["y"] == pytest.approx(rows["loss"].to_list(), rel=1e-5)
        assert curve["m"] == pytest.approx(rows["smooth"].to_list(), rel=1e-5)
    pairs = sweep_frames.paired_deltas(frames.evals, comparison.rule.control)
    for row in sweep_frames.mean_deltas(pairs).iter_rows(named=True):
        mean = values[f"pair/{row['variant']}/{row['scale']}"]["mean"][row["phase"]]
        place = mean["t"].index(row["tokens"])
        assert (mean["y"][place], mean["n"][place]) == (pytest.approx(row["mean"], rel=1e-5), row["n"])
        for end in ("low", "high"):
            assert mean[end][place] == (None if row[end] is None else pytest.approx(row[end], rel=1e-5))
    tops = {frames.unit: pytest.approx(sweep_frames.loss_ceiling(frames.losses), rel=1e-5)}
    assert values["ceilings"] == tops


def test_a_sweep_that_grows_is_shown_as_the_report_shows_it(sim: SimulatedSweep):
    feed = SweepFeed(sim.sweep.path)
    updated(feed, START)
    for _ in range(3):
        for name in sim.names[:8]:
            sim.advance(name, 20)
        updated(feed, sim.clock)
    sim.finish()
    values = updated(feed, sim.clock)
    check_like_report(sim.sweep, values)
    assert values["progress"]["state"] == "over"
    assert values["progress"]["share"] == 1
    assert "trail/xs/mha/seed0" not in values, "all of it is on disk"


def test_only_new_parts_of_a_curve_are_opened(sim: SimulatedSweep, monkeypatch: pytest.MonkeyPatch):
    name = sim.names[0]
    feed, opened, read = SweepFeed(sim.sweep.path), [], metrics.read_parts
    sim.advance(name, 16)
    sim.advance(name, 16)
    updated(feed, sim.clock)
    monkeypatch.setattr(metrics, "read_parts", lambda parts, kind: opened.extend(parts) or read(parts, kind))
    sim.advance(name, 16)
    feed.update(sim.clock)
    assert {(part.start, part.end) for part in opened} == {(32, 48)}
    assert feed.state.value(f"curve/{name}")["s"][-1] == 48


def test_a_run_that_started_over_is_read_anew(sim: SimulatedSweep):
    name = sim.names[0]
    sim.advance(name, 32)
    feed = SweepFeed(sim.sweep.path)
    updated(feed, sim.clock)
    metrics.truncate_after(sim.run(name), 10)
    updated(feed, sim.clock)
    assert feed.state.value(f"curve/{name}")["s"][-1] == 10


def test_steps_that_are_not_on_disk_yet_are_shown_from_the_status(sim: SimulatedSweep):
    name = sim.names[0]
    feed = SweepFeed(sim.sweep.path)
    sim.advance(name, 16)
    for _ in range(3):
        sim.advance(name, 4, is_saved=False)
        updated(feed, sim.clock)
    trail = feed.state.value(f"trail/{name}")
    assert trail["s"] == [20, 24, 28]
    assert trail["t"][0] == 20 * feed.state.value(f"curve/{name}")["t"][-1] // 16


def test_progress_queue_failures_and_lanes(sim: SimulatedSweep):
    first, second, third, *rest = sim.names
    sim.advance(first, 64)
    sim.advance(second, 32)
    sim.advance(third, 16)
    sim.fail(third, "<b>out of memory</b>")
    values = updated(SweepFeed(sim.sweep.path), sim.clock + 1)
    progress = values["progress"]
    assert progress["counts"] == {"running": 1, "failed": 1, "ended": 1, "queued": len(rest)}
    assert progress["failures"] == [f"{third}: failed at step 16 (<b>out of memory</b>)"]
    assert second in progress["running"]
    assert [cell for cell in values["runs"] if cell[1] == "running"] == [[second, "running", 0.5]]
    bars = [bar for row in values["lanes"]["rows"] for bar in row]
    assert {bar[0] for bar in bars} == {first, second, third}
    assert values["lanes"]["lines"][0].startswith("utilisation ")


def test_a_verdict_before_the_end_says_that_it_is_interim(sim: SimulatedSweep):
    for name in sim.names[:6]:
        sim.advance(name, 64)
    sim.advance(sim.names[6], 8)
    feed = SweepFeed(sim.sweep.path)
    html = updated(feed, sim.clock)["verdict"]["html"]
    assert 'class="interim"' in html
    sim.finish()
    html = updated(feed, sim.clock)["verdict"]["html"]
    assert 'class="interim"' not in html
    assert compare(sim.sweep).verdict.split("\n")[0].split(" ")[0] in html


def test_a_sweep_that_has_not_begun_and_one_that_is_deleted(tmp_path: Path):
    feed = SweepFeed(tmp_path / "trial")
    feed.update(START)
    assert feed.state.value("notice")["text"].startswith("Waiting for the sweep to begin: ")
    write_sweep(tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=()))
    updated(feed, START)
    assert feed.state.value("notice") is None
    shutil.rmtree(tmp_path / "trial")
    feed.update(START)
    assert feed.state.value("notice")["kind"] == "gone"
    assert "was moved or deleted" in feed.state.value("notice")["text"]
    assert feed.state.value("progress"), "what it was is still shown"
    write_sweep(tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=()))
    updated(feed, START)
    assert feed.state.value("notice") is None


def test_a_sweep_is_at_work_as_long_as_a_process_drives_it(sim: SimulatedSweep):
    feed = SweepFeed(sim.sweep.path)
    updated(feed, START)
    assert feed.state.value("progress")["state"] == "stopped"
    assert acquire(sim.sweep.driver_lock)
    try:
        updated(feed, START)
        assert feed.state.value("progress")["state"] == "at work"
    finally:
        release(sim.sweep.driver_lock)


def test_a_folder_lists_its_sweeps_the_newest_first(sim: SimulatedSweep, tmp_path: Path):
    write_sweep(tmp_path / "runs" / "done", Recipe(scales={"xs": 10**7}, branches=()))
    sim.advance(sim.names[0], 8)
    (tmp_path / "runs" / "notes").mkdir()
    feed = FolderFeed(tmp_path / "runs")
    feed.update(START)
    rows = feed.state.value("sweeps")["rows"]
    assert [(row["name"], row["state"]) for row in rows] == [("trial", "at work"), ("done", "over")]
    shutil.rmtree(tmp_path / "runs" / "done")
    feed.update(START)
    assert [row["name"] for row in feed.state.value("sweeps")["rows"]] == ["trial"]
    shutil.rmtree(tmp_path / "runs")
    feed.update(START)
    assert feed.state.value("notice")["kind"] == "gone"


def test_only_sweeps_of_the_folder_have_a_page(sim: SimulatedSweep, tmp_path: Path):
    write_sweep(tmp_path / "secret", Recipe(scales={"xs": 10**7}, branches=()))
    pages = Pages(tmp_path / "runs")
    assert pages.has([])
    assert pages.has(["sweep", "trial"])
    for name in ("..", "../secret", "trial/..", str(tmp_path / "secret"), "", "*"):
        assert not pages.has(["sweep", name])
    assert not Pages(sim.sweep.path).has(["sweep", "trial"]), "the page of one sweep has no others"


def test_a_reading_writes_nothing(sim: SimulatedSweep):
    sim.advance(sim.names[0], 8)
    before = {path: path.stat().st_mtime_ns for path in sim.sweep.path.rglob("*")}
    updated(SweepFeed(sim.sweep.path), sim.clock)
    assert {path: path.stat().st_mtime_ns for path in sim.sweep.path.rglob("*")} == before


def test_a_difference_is_the_mean_over_seeds_and_domains(tmp_path: Path):
    recipe = Recipe(scales={"xs": 10**7}, branches=())
    sweep = write_sweep(tmp_path / "trial", recipe)
    values = updated(SweepFeed(sweep.path), START)
    evals = [metrics.read_curve(run, "evals").filter(pl.col("step") == 64) for run in sweep.runs()]
    assert {name for frame in evals for name in frame["domain"]} == {"code", "prose"}
    ends = np.array([frame["loss"].to_numpy().mean() for frame in evals])  # hybrid's seeds, then mha's
    mean = (ends[:3] - ends[3:]).mean()
    assert values["pair/hybrid/xs"]["mean"]["decayed"]["y"] == [pytest.approx(mean, rel=1e-5)]
