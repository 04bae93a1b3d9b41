"""The packages of the trackers, offline: what they hold is what the run directories hold."""

from __future__ import annotations

import importlib
import sqlite3
from functools import partial
from typing import Any

import pytest

from harness.compare.inputs.importers.wandb_runs import read_wandb_run
from harness.config.schema.tracker import MlflowConfig, TrackerConfig, TrackioConfig, WandbConfig
from harness.records.paths import SweepDir
from harness.records.run.metrics import read_curve
from harness.trackers.known_trackers import TRACKERS, make_backend
from harness.trackers.sent_runs import read_sent_runs
from harness.trackers.sweep_mirror import Mirror
from tests.compare.synthetic import Recipe, write_sweep

TINY = Recipe(scales={"xs": 10**6}, seeds=(0,), steps=20, branches=())
CONFIG = TrackerConfig(None, WandbConfig(), TrackioConfig(), MlflowConfig())
RUN = "xs/hybrid/seed0"

pytestmark = pytest.mark.slow


def read_tensorboard(sweep: SweepDir) -> dict[int, float]:
    module: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(sweep.trackers / "tensorboard" / RUN)).Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def read_wandb(sweep: SweepDir) -> dict[int, float]:
    runs = [read_wandb_run(file) for file in sweep.trackers.glob("wandb/offline-run-*/*.wandb")]
    [run] = [run for run in runs if run.name.endswith(RUN)]
    rows = run.frame.select("_step", "train/loss").drop_nulls()
    return {int(step): float(loss) for step, loss in rows.iter_rows()}


def read_trackio(sweep: SweepDir) -> dict[int, float]:
    module: Any = importlib.import_module("trackio.sqlite_storage")
    logs = module.SQLiteStorage.get_logs("synthetic", RUN)
    return {row["step"]: row["train/loss"] for row in logs if "train/loss" in row}


def read_mlflow(sweep: SweepDir) -> dict[int, float]:
    connection = sqlite3.connect(sweep.trackers / "mlflow" / "mlflow.db")
    query = "SELECT step, value FROM metrics JOIN runs USING (run_uuid) WHERE runs.name = ? AND key = ?"
    return dict(connection.execute(query, (RUN, "train/loss")).fetchall())


READERS = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "trackio": read_trackio,
    "mlflow": read_mlflow,
}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_holds_the_losses_of_the_run_directory(tmp_path, monkeypatch, tracker):
    pytest.importorskip(tracker, reason=f"{tracker} is not installed; `make test-trackers` installs it")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sweep = write_sweep(tmp_path / "synthetic", TINY)
    for _ in range(2):  # the second time nothing is sent
        backend = partial(make_backend, tracker, sweep.trackers, "synthetic", CONFIG)
        mirror = Mirror(sweep, backend, read_sent_runs(sweep, tracker, {}))
        assert mirror.send(is_last=True), read_sent_runs(sweep, tracker, {}).problem
        mirror.close()
    rows = read_curve(sweep.run("xs", "hybrid", 0), "steps")
    expected = dict(zip(rows["step"].to_list(), rows["loss"].to_list(), strict=True))
    assert READERS[tracker](sweep) == pytest.approx(expected, rel=1e-6)
