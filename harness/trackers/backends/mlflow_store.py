"""MLflow: a database in the sweep's folder, or a tracking server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag  # pyright: ignore[reportMissingImports]
from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

from harness.config.schema.tracker import MlflowConfig
from harness.core.hashing import flatten
from harness.trackers.tracker_api import Point, Position, RunEnd, TrackedRun

ID_TAG = "ab_harness.id"
"""Tag by which a run is found again."""
MAX_METRICS, MAX_PARAMS, MAX_LETTERS = 1000, 100, 500
"""Limits of one call, and of the value of a parameter in old servers."""
STATES = {RunEnd.finished: "FINISHED", RunEnd.failed: "FAILED", RunEnd.unfinished: "KILLED"}


class MlflowRun:
    """Run of MLflow. The points of a call are stored together or not at all."""

    def __init__(self, client: MlflowClient, experiment_id: str, run: TrackedRun, is_new: bool) -> None:
        """Create the run, or take up the one that has its id."""
        self._client, self._started = client, run.started
        query = f"tags.`{ID_TAG}` = '{run.id}'"
        stored = [] if is_new else client.search_runs([experiment_id], query, max_results=1)
        self._id = stored[0].info.run_id if stored else self._create(experiment_id, run)
        if stored:
            client.update_run(self._id, "RUNNING")
        history = client.get_metric_history(self._id, "tokens") if stored else []
        self.last_step = max((metric.step for metric in history), default=-1)

    def _create(self, experiment_id: str, run: TrackedRun) -> str:
        tags = {ID_TAG: run.id, "group": run.group, "job_type": run.job_type}
        start = round(run.started * 1000) or None
        new_run = self._client.create_run(experiment_id, start_time=start, tags=tags, run_name=run.name)
        params = [Param(key, str(value)[:MAX_LETTERS]) for key, value in flatten({**run.config}).items()]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(new_run.info.run_id, params=params[first : first + MAX_PARAMS])
        return new_run.info.run_id

    def log(self, points: Sequence[Point]) -> None:
        """Send the points, those of a step in one call."""
        for metrics in self._batches(points):
            self._client.log_batch(self._id, metrics=metrics)

    def _batches(self, points: Sequence[Point]) -> Iterator[list[Metric]]:
        batch: list[Metric] = []
        for point in points:
            time = round((self._started + point.values.get("device_seconds", 0.0)) * 1000)
            metrics = [Metric(name, value, time, point.step) for name, value in point.values.items()]
            if len(batch) + len(metrics) > MAX_METRICS:
                yield batch
                batch = []
            batch += metrics
        if batch:
            yield batch

    def attach(self, files: Sequence[Path]) -> None:
        """Send the files as artifacts of the run."""
        for path in files:
            self._client.log_artifact(self._id, str(path))

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        """Write the summary as tags, and the end of the run."""
        tags = [RunTag(f"summary.{name}", str(value)[:MAX_LETTERS]) for name, value in summary.items()]
        self._client.log_batch(self._id, tags=tags[:MAX_PARAMS])
        self._client.set_terminated(self._id, STATES[end])


class MlflowBackend:
    """Runs of one experiment."""

    def __init__(self, folder: Path, experiment: str, config: MlflowConfig) -> None:
        """`folder`: place of the database and of its artifacts, unless a server is named."""
        uri, artifacts = config.uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder.absolute()}/mlflow.db", (folder / "artifacts").absolute()
        self._client = MlflowClient(uri)
        name = config.experiment or experiment
        stored = self._client.get_experiment_by_name(name)
        place = artifacts and artifacts.as_uri()
        self._experiment_id = stored.experiment_id if stored else self._client.create_experiment(name, place)

    def open_run(self, run: TrackedRun, position: Position) -> MlflowRun:
        """Open a run. Raises MLflow's errors if the server does not answer."""
        is_new = position.step < 0 and position.is_exact
        return MlflowRun(self._client, self._experiment_id, run, is_new)

    def close(self) -> None:
        """Do nothing: every call is complete when it returns."""
