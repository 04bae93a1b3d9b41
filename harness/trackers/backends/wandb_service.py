"""Weights & Biases: runs in the sweep's folder for `wandb sync`, or on the server.

An offline run cannot be continued, so a new process writes it again from its first step. The server knows the
last step of a run, and is sent what follows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb  # pyright: ignore[reportMissingImports]

from harness.config.schema.tracker import WandbConfig, WandbMode
from harness.trackers.tracker_api import Point, Position, RunEnd, TrackedRun

CURVES = ("train/*", "eval/*", "difference/*")
"""Names of the curves that W&B draws over tokens at first; all axes can be chosen there."""


class WandbRun:
    """Run of W&B, held by the service process that the package starts."""

    def __init__(self, folder: Path, project: str, config: WandbConfig, run: TrackedRun) -> None:
        """Create or resume the run."""
        is_online = config.mode is WandbMode.online
        if not is_online:
            for earlier in folder.glob(f"wandb/offline-run-*-{run.id}"):
                shutil.rmtree(earlier)
        self._run = wandb.init(
            project=project, entity=config.entity, dir=str(folder), mode=config.mode.value,
            id=run.id, name=run.name, group=run.group, job_type=run.job_type, config={**run.config},
            resume="allow" if is_online else None, reinit="create_new", settings=_settings(),
        )  # fmt: skip
        self.last_step = self._run.step - 1 if is_online and self._run.resumed else -1
        for curves in CURVES:
            self._run.define_metric(curves, step_metric="tokens")

    def log(self, points: Sequence[Point]) -> None:
        """Hand the points to the service process."""
        for point in points:
            self._run.log({**point.values}, step=point.step, commit=True)

    def attach(self, files: Sequence[Path]) -> None:
        """Send the files as one artifact, and show pages in the run."""
        artifact = wandb.Artifact(f"verdict-{self._run.id}", type="verdict")
        for path in files:
            artifact.add_file(str(path))
            if path.suffix == ".html":
                self._run.log({path.stem: wandb.Html(path.read_text(), inject=False)})
        self._run.log_artifact(artifact)

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        """Write the summary and wait until the service has everything."""
        self._run.summary.update({**summary})
        if end is RunEnd.unfinished:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if end is RunEnd.finished else 1)


class WandbBackend:
    """Runs of one project."""

    def __init__(self, folder: Path, project: str, config: WandbConfig) -> None:
        """`folder`: parent of the folder `wandb`, which holds offline runs and logs."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
            os.environ.setdefault(name, str(folder / "data"))
        self._folder, self._project, self._config = folder, config.project or project, config

    def open_run(self, run: TrackedRun, position: Position) -> WandbRun:
        """Open a run. Raises wandb's errors if the server does not answer."""
        return WandbRun(self._folder, self._project, self._config, run)

    def close(self) -> None:
        """End the service process."""
        wandb.teardown()


def _settings() -> wandb.Settings:
    """Return settings under which W&B records nothing of this process, which is not the one that trains."""
    return wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
    )  # fmt: skip
