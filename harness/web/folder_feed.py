"""Sweeps of a folder, for the page that links to each of them."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core import atomic_files
from harness.core.number_format import plain_text
from harness.records.paths import SweepDir
from harness.report.frames.sweep_progress import ProgressReader
from harness.report.tables.progress_tables import summary_text
from harness.web.page_state import PageState
from harness.web.sweep_feed import FAILED, run_states, state_text

MAX_SWEEPS = 500
"""Number of sweeps that are listed, at most: the newest."""


class FolderFeed:
    """Reader of the sweeps in a folder, such as `runs/`. One thread calls `update`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = PageState()
        self._readers: dict[str, tuple[float, ProgressReader]] = {}
        self._rows: dict[str, dict] = {}

    def sweeps(self) -> dict[str, SweepDir]:
        """Return the sweeps in the folder by name, the one that changed last first."""
        present = [SweepDir(path) for path in self.folder.iterdir() if SweepDir(path).rule.is_file()]
        newest = sorted(present, key=lambda sweep: -_last_change(sweep))[:MAX_SWEEPS]
        return {sweep.path.name: sweep for sweep in newest}

    def update(self, now: float) -> bool:
        """Read the sweeps that changed or are at work; return False, since all is read at once."""
        if not self.folder.is_dir():
            self.state.put("notice", {"kind": "gone", "text": f"{self.folder} was moved or deleted."})
            return False
        sweeps = self.sweeps()
        notice = None if sweeps else {"kind": "waiting", "text": f"No sweep lies in {self.folder} yet."}
        self.state.put("notice", notice)
        self._readers = {name: entry for name, entry in self._readers.items() if name in sweeps}
        self._rows = {name: self._row(name, sweep, now) for name, sweep in sweeps.items()}
        self.state.put("sweeps", {"folder": self.folder.name, "rows": [*self._rows.values()]})
        return False

    def _row(self, name: str, sweep: SweepDir, now: float) -> dict:
        changed = _last_change(sweep)
        old = self._readers.get(name)
        if old and old[0] == changed and self._rows[name]["state"] == "over":
            return self._rows[name]
        reader = old[1] if old else ProgressReader(sweep)
        self._readers[name] = changed, reader
        progress = reader.read(now)
        stored = atomic_files.read_json(sweep.comparison)
        verdict = stored.get("verdict") if isinstance(stored, dict) else None
        failed = sum(state == FAILED for state in run_states(progress).values())
        return {
            "name": name,
            "state": state_text(progress),
            "share": round(progress.done_share, 3),
            "summary": summary_text(progress),
            "failed": failed,
            "changed": round(changed),
            "verdict": [plain_text(line) for line in verdict.split("\n")] if isinstance(verdict, str) else [],
        }


def _last_change(sweep: SweepDir) -> float:
    """Return when a sweep last changed, in UTC seconds: its ledger, its comparison, or a file of a run."""
    times = [_change_time(path) for path in (sweep.path, sweep.ledger, sweep.comparison)]
    return max([*times, *(_change_time(run.path) for run in sweep.runs())])


def _change_time(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
