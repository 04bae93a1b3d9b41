"""trackio: its local database, or a server or Space that its environment variables name.

trackio keeps one run open at a time, and turns errors into warnings. A batch of points is therefore sent by
opening the run, logging and finishing; from a local database the last step is read back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.schema.tracker import TrackioConfig
from harness.trackers.tracker_api import Point, Position, RunEnd, TrackedRun, TrackerError

QUIET = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
"""Arguments under which trackio records nothing of this process, which is not the one that trains."""
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables by which trackio sends runs elsewhere."""


class TrackioRun:
    """Run of trackio, found by its name in the project."""

    def __init__(self, project: str, run: TrackedRun, position: Position) -> None:
        """Create the run with its first points, or take up the one of its name."""
        self._project, self._run = project, run
        self._is_new = position.step < 0 and position.is_exact
        stored = -1 if self._is_new else self._stored_step()
        self.last_step = position.step if stored is None else stored

    def log(self, points: Sequence[Point]) -> None:
        """Send the points. Raises TrackerError if the database does not hold the last one then."""
        with_run = self._open()
        for point in points:
            with_run.log({**point.values}, step=point.step)
        with_run.finish()
        stored = self._stored_step()
        if stored is not None and stored < points[-1].step:
            raise TrackerError(f"trackio holds {self._run.name} up to step {stored} of {points[-1].step}")

    def attach(self, files: Sequence[Path]) -> None:
        """Send the files as an artifact each."""
        with_run = self._open()
        for path in files:
            with_run.log_artifact(path, name=f"{path.stem}-{self._run.id}", type="verdict")
        with_run.finish()

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        """Do nothing: trackio has no summaries, and every batch is complete when it was sent."""

    def _open(self) -> Any:
        # It reads TRACKIO_DIR once, when it is imported.
        import trackio  # pyright: ignore[reportMissingImports]

        resume, self._is_new = "never" if self._is_new else "allow", False
        labels = {"group": self._run.group, "job_type": self._run.job_type}
        config = {**labels, **self._run.config}
        return trackio.init(
            self._project, self._run.name, group=self._run.group, config=config, resume=resume, **QUIET
        )

    def _stored_step(self) -> int | None:
        """Return the last step that a local database holds, -1 without any; None for a remote one."""
        if any(os.environ.get(name) for name in REMOTE):
            return None
        from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

        record = SQLiteStorage.get_latest_run_record_by_name(self._project, self._run.name)
        if not record:
            return -1
        step = SQLiteStorage.get_max_step_for_run(self._project, self._run.name, run_id=record["id"])
        return -1 if step is None else step


class TrackioBackend:
    """Runs of one project."""

    def __init__(self, folder: Path, project: str, config: TrackioConfig) -> None:
        """`folder`: place of the database, unless TRACKIO_DIR names another."""
        os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
        self._project = config.project or project

    def open_run(self, run: TrackedRun, position: Position) -> TrackioRun:
        """Open a run."""
        return TrackioRun(self._project, run, position)

    def close(self) -> None:
        """Do nothing: every batch is complete when it was sent."""
