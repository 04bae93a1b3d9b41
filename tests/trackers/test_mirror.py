"""Every point of a sweep reaches a tracker once, whatever happens to the tracker, the mirror and the runs."""

from __future__ import annotations

from collections import namedtuple
from functools import partial

import polars as pl
import pytest

from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import list_parts, read_curve, write_part
from harness.records.run.status import State, Status, write_status
from harness.trackers import sweep_mirror as mirror_module
from harness.trackers.sent_runs import read_sent_runs
from harness.trackers.sweep_mirror import Mirror
from harness.trackers.tracker_api import RunEnd
from tests.compare.synthetic import Recipe, write_sweep
from tests.trackers.recording import RecordingBackend, Store

TINY = Recipe(scales={"xs": 10**6}, seeds=(0, 1), steps=20, branches=(0.5,))


@pytest.fixture
def sweep(tmp_path) -> SweepDir:
    return write_sweep(tmp_path / "synthetic", TINY)


def open_mirror(sweep: SweepDir, store: Store) -> Mirror:
    """A mirror as a new process has it: the record on disk, and what the tracker holds."""
    return Mirror(sweep, partial(RecordingBackend, store), read_sent_runs(sweep, "fake", {}))


def rows_on_disk(run: RunDir) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_curve(run, "steps").iter_rows(named=True)]


def rows_sent(store: Store, name: str) -> list[tuple[int, float]]:
    points = store.named(name).points
    return [(point.step, point.values["train/loss"]) for point in points if "train/loss" in point.values]


def check_complete(sweep: SweepDir, store: Store) -> None:
    for run in sweep.runs():
        name = run.path.relative_to(sweep.path).as_posix()
        assert rows_sent(store, name) == rows_on_disk(run)
        steps = [point.step for point in store.named(name).points]
        assert steps == sorted({*steps})


def cut_run(run: RunDir, step: int, state: State = State.running) -> dict[str, list[dict]]:
    """Leave a run as it was at a step, and return all its rows."""
    rows = {kind: read_curve(run, kind).to_dicts() for kind in ("steps", "evals")}
    for kind, content in rows.items():
        for part in list_parts(run, kind):
            part.path.unlink()
        write_part(run, kind, 0, step, [row for row in content if row["step"] <= step])
    write_status(run, Status(state=state, step=step))
    return rows


def grow_run(run: RunDir, rows: dict[str, list[dict]], start: int, state: State) -> None:
    """Append the rows after a step, as a part of their own."""
    last = max(row["step"] for row in rows["steps"])
    for kind, content in rows.items():
        write_part(run, kind, start, last, [row for row in content if row["step"] > start])
    write_status(run, Status(state=state, step=last))


def test_a_finished_sweep_is_sent_once_however_often_it_is_mirrored(sweep):
    store = Store()
    assert open_mirror(sweep, store).send(is_last=True)
    check_complete(sweep, store)
    before = {name: len(run.points) for name, run in store.runs.items()}
    assert open_mirror(sweep, store).send(is_last=True)
    assert {name: len(run.points) for name, run in store.runs.items()} == before
    assert all(run.ends == [RunEnd.finished] for run in store.runs.values())


def test_groups_are_blocks_and_job_types_are_roles(sweep):
    store = Store()
    open_mirror(sweep, store).send(is_last=True)
    labels = {run.labels.name: (run.labels.group, run.labels.job_type) for run in store.runs.values()}
    assert labels == {
        "xs/mha/seed0": ("xs/seed0", "control"),
        "xs/mha/seed1": ("xs/seed1", "control"),
        "xs/hybrid/seed0": ("xs/seed0", "variant"),
        "xs/hybrid/seed1": ("xs/seed1", "variant"),
        "xs/mha/seed0/branch50": ("xs/seed0", "control branch"),
        "xs/mha/seed1/branch50": ("xs/seed1", "control branch"),
        "xs/hybrid/seed0/branch50": ("xs/seed0", "variant branch"),
        "xs/hybrid/seed1/branch50": ("xs/seed1", "variant branch"),
        "xs/hybrid minus mha/seed0": ("xs/seed0", "paired difference"),
        "xs/hybrid minus mha/seed1": ("xs/seed1", "paired difference"),
    }


def test_the_paired_difference_is_the_difference_of_the_held_out_losses(sweep):
    store = Store()
    open_mirror(sweep, store).send(is_last=True)
    for seed in TINY.seeds:
        frames = [read_curve(sweep.run("xs", name, seed), "evals") for name in ("hybrid", "mha")]
        means = [frame.group_by("step").agg(pl.col("loss").mean()) for frame in frames]
        joined = means[0].join(means[1], on="step").sort("step")
        expected = (joined["loss"] - joined["loss_right"]).to_list()
        points = store.named(f"xs/hybrid minus mha/seed{seed}").points
        assert [point.values["difference/loss"] for point in points] == pytest.approx(expected, abs=1e-12)


def test_points_follow_as_a_run_grows_and_it_is_closed_at_its_end(sweep):
    run, store = sweep.run("xs", "mha", 0), Store()
    rows = cut_run(run, 8)
    mirror = open_mirror(sweep, store)
    assert mirror.send()
    assert [step for step, _ in rows_sent(store, "xs/mha/seed0")][-1] <= 8
    assert store.named("xs/mha/seed0").ends == []
    grow_run(run, rows, 8, State.finished)
    assert mirror.send(is_last=True)
    check_complete(sweep, store)
    assert store.named("xs/mha/seed0").ends == [RunEnd.finished]


@pytest.mark.parametrize("points", [0, 1, 7, 23, 50])
def test_an_outage_in_the_middle_of_a_call_loses_and_doubles_nothing(sweep, points):
    store = Store(points_left=points)
    assert not open_mirror(sweep, store).send(is_last=True)
    store.points_left = float("inf")
    assert open_mirror(sweep, store).send(is_last=True)
    check_complete(sweep, store)


def test_the_same_mirror_goes_on_after_an_outage(sweep):
    store = Store(points_left=13)
    mirror = open_mirror(sweep, store)
    assert not mirror.send()
    store.points_left = float("inf")
    assert mirror.send(is_last=True)
    check_complete(sweep, store)


def test_a_run_that_is_refused_holds_up_no_other(sweep):
    store = Store(broken={"xs/hybrid/seed0"})
    assert not open_mirror(sweep, store).send(is_last=True)
    assert store.names() >= {"xs/hybrid/seed1", "xs/mha/seed0", "xs/mha/seed1"}
    store.broken.clear()
    assert open_mirror(sweep, store).send(is_last=True)
    check_complete(sweep, store)


def test_a_run_that_is_resumed_from_an_earlier_step_is_not_sent_twice(sweep):
    run, store = sweep.run("xs", "mha", 0), Store()
    mirror = open_mirror(sweep, store)
    rows = cut_run(run, 12)
    mirror.send()
    cut_run(run, 5)
    assert mirror.send()
    assert rows_sent(store, "xs/mha/seed0")[-1][0] == 12
    grow_run(run, rows, 5, State.finished)
    assert mirror.send(is_last=True)
    check_complete(sweep, store)


def test_an_interrupted_mirror_of_a_resumed_run_does_not_begin_it_anew(sweep):
    run, store = sweep.run("xs", "mha", 0), Store()
    rows = cut_run(run, 12)
    open_mirror(sweep, store).send(is_last=True)
    cut_run(run, 5)
    open_mirror(sweep, store).send(is_last=True)
    grow_run(run, rows, 5, State.finished)
    open_mirror(sweep, store).send(is_last=True)
    check_complete(sweep, store)
    assert store.named("xs/mha/seed0").ends == [RunEnd.unfinished, RunEnd.finished]


def test_a_run_that_started_over_with_other_losses_becomes_a_second_run(sweep):
    run, store = sweep.run("xs", "mha", 0), Store()
    open_mirror(sweep, store).send(is_last=True)
    before = rows_sent(store, "xs/mha/seed0")
    rows = cut_run(run, 0)
    changed = {kind: [row | {"loss": row["loss"] + 1} for row in content] for kind, content in rows.items()}
    grow_run(run, changed, 0, State.finished)
    open_mirror(sweep, store).send(is_last=True)
    assert rows_sent(store, "xs/mha/seed0") == before
    assert rows_sent(store, "xs/mha/seed0 (2)") == rows_on_disk(run) != before


def test_a_failed_run_is_told_as_failed(sweep):
    store = Store()
    cut_run(sweep.run("xs", "mha", 1), 8, State.diverged)
    open_mirror(sweep, store).send(is_last=True)
    assert store.named("xs/mha/seed1").ends == [RunEnd.failed]
    assert store.named("xs/mha/seed1").summary["state"] == "diverged"


def test_a_full_disk_is_left_to_the_runs(sweep, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(mirror_module.shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 5000, 5000))
    store = Store()
    assert not open_mirror(sweep, store).send(is_last=True)
    assert not store.runs
    problem = read_sent_runs(sweep, "fake", {}).problem
    monkeypatch.undo()
    assert open_mirror(sweep, store).send(is_last=True), problem
    check_complete(sweep, store)


def test_a_record_that_was_damaged_is_mended_from_what_the_tracker_holds(sweep):
    store = Store()
    open_mirror(sweep, store).send(is_last=True)
    (sweep.trackers / "fake.json").write_text("{}")
    open_mirror(sweep, store).send(is_last=True)
    check_complete(sweep, store)
