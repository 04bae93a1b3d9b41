"""TensorBoard event files, a folder a run: `SWEEP/trackers/tensorboard/<scale>/<variant>/seed<k>/`.

TensorBoard draws over steps or time. The time of a point is the run's start plus its device-seconds, so the
axis RELATIVE shows device-seconds; losses are written again over tokens and over GFLOPs, as steps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportMissingImports]
from tensorboard.plugins.text.summary_v2 import text_pb  # pyright: ignore[reportMissingImports]
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # pyright: ignore[reportMissingImports]

from harness.core.png import png_size
from harness.trackers.tracker_api import Point, Position, RunEnd, TrackedRun

OVER_AXES = {"tokens": ("over_tokens", 1.0), "flops": ("over_gflops", 1e-9)}
"""Prefix of the tags whose steps are another axis, and the factor of that axis."""
LOSSES = ("loss", "difference", "bits_per_byte")
"""Last parts of the tags that are drawn over other axes too."""


class EventFileRun:
    """Event files of a run. An event holds all values of a step, so none is half written."""

    def __init__(self, folder: Path, run: TrackedRun, position: Position) -> None:
        """Continue the files, or begin anew where the last process may have died within a step."""
        self.last_step = position.step if position.is_exact else -1
        if self.last_step < 0:
            shutil.rmtree(folder, ignore_errors=True)
        self._run, self._writer, self._step = run, EventFileWriter(str(folder)), max(0, position.step)
        if self.last_step < 0:
            labels = {"group": run.group, "job_type": run.job_type, **run.config}
            self._text("config", f"```json\n{json.dumps(labels, indent=2)}\n```")

    def log(self, points: Sequence[Point]) -> None:
        """Write an event a point, and one for each axis over which its losses are drawn."""
        for point in points:
            self._step = point.step
            time = self._run.started + point.values.get("device_seconds", 0.0)
            losses = {tag: value for tag, value in point.values.items() if tag.split("/")[-1] in LOSSES}
            for axis, (prefix, factor) in OVER_AXES.items():
                if losses and axis in point.values:
                    copies = {f"{prefix}/{tag}": value for tag, value in losses.items()}
                    self._scalars(round(point.values[axis] * factor), time, copies)
            self._scalars(point.step, time, point.values)
        self._writer.flush()

    def attach(self, files: Sequence[Path]) -> None:
        """Write PNG pictures as images, and JSON and text as text. TensorBoard shows no pages."""
        for path in files:
            if path.suffix == ".png":
                width, height = png_size(path.read_bytes())
                image = Summary.Image(
                    width=width, height=height, colorspace=4, encoded_image_string=path.read_bytes()
                )
                self._write(Summary(value=[Summary.Value(tag=path.stem, image=image)]))
            elif path.suffix in (".json", ".md"):
                fence = "```" if path.suffix == ".json" else ""
                self._text(path.stem, f"{fence}\n{path.read_text()}\n{fence}")
        self._writer.flush()

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        """Write the summary as text and close the file."""
        rows = [f"| {name} | {value} |" for name, value in ({"end": end.value} | dict(summary)).items()]
        self._text("summary", "\n".join(["| | |", "|---|---|", *rows]))
        self._writer.close()

    def _scalars(self, step: int, time: float, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Event(step=step, wall_time=time, summary=summary))

    def _text(self, tag: str, text: str) -> None:
        self._write(text_pb(tag, text))

    def _write(self, summary: Any) -> None:
        event = Event(step=self._step, wall_time=self._run.started)
        event.summary.ParseFromString(summary.SerializeToString())
        self._writer.add_event(event)


class TensorboardBackend:
    """Event files below the folder of the tracker."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the log directory that TensorBoard is given."""
        self._folder = folder

    def open_run(self, run: TrackedRun, position: Position) -> EventFileRun:
        """Open the event files of a run."""
        return EventFileRun(self._folder / run.name, run, position)

    def close(self) -> None:
        """Do nothing: every run closes its own file."""
