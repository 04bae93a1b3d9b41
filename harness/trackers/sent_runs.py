"""Record of what a tracker was sent, `SWEEP/trackers/<tracker>.json`: the last step of each run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import SweepDir
from harness.records.typed_values import fields_fit
from harness.trackers.tracker_api import Position


@dataclass
class SentRun:
    """Record of one run."""

    step: int = -1
    """Last step that was sent; -1: nothing."""
    is_exact: bool = True
    """False while the run is open: after a kill nobody knows what the tracker holds of it."""
    fingerprint: str = ""
    """Hash of the values at `step`, except times."""
    signature: str = ""
    """Hash of the files that were read, if all that they hold was sent."""
    version: str = ""
    """Version of the curve."""
    end: str = ""
    """End with which the run was closed; empty if it never was."""
    number: int = 1
    """Number of runs in the tracker that this run has had: a curve that changed is sent anew."""

    @property
    def position(self) -> Position:
        """Position from which a backend goes on."""
        return Position(self.step, self.is_exact)


@dataclass
class SentRuns:
    """Records of all runs for one tracker, and its settings, under which they were sent."""

    path: Path
    settings: dict[str, Any]
    runs: dict[str, SentRun] = field(default_factory=dict)
    problem: str = ""
    """Sentence about what was not sent, from the process that tried last; empty if everything was."""

    def run(self, name: str) -> SentRun:
        """Return the record of a run, a new one if nothing of it was sent."""
        return self.runs.setdefault(name, SentRun())

    def write(self) -> None:
        """Write the records to disk."""
        runs = {name: dataclasses.asdict(run) for name, run in self.runs.items()}
        write_checksummed_json(self.path, {"settings": self.settings, "runs": runs, "problem": self.problem})


def record_path(sweep: SweepDir, tracker: str) -> Path:
    """Return the path of the record for a tracker."""
    return sweep.trackers / f"{tracker}.json"


def stored_settings(sweep: SweepDir, tracker: str) -> dict[str, Any] | None:
    """Return the settings under which a tracker was sent the sweep; None if it was not."""
    record = read_checksummed_json(record_path(sweep, tracker)) or {}
    settings = record.get("settings")
    return settings if isinstance(settings, dict) else None


def read_sent_runs(sweep: SweepDir, tracker: str, settings: dict[str, Any]) -> SentRuns:
    """Return the records for a tracker. With other settings it is another place, which was sent nothing; so
    it is taken if the file is missing or damaged."""
    path = record_path(sweep, tracker)
    record = read_checksummed_json(path) or {}
    records = SentRuns(path, settings)
    if record.get("settings") == settings and isinstance(record.get("runs"), dict):
        records.runs = {name: run for name, node in record["runs"].items() if (run := _parse(node))}
    return records


def _parse(node: Any) -> SentRun | None:
    try:
        run = SentRun(**node)
    except TypeError:
        return None
    return run if fields_fit(run) else None
