"""Summary of a sweep in few words, from its small files alone: how far it is, its verdict, and its age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.atomic_files import read_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run.run_lock import owner, worker_of
from harness.records.run.status import State, read_status


@dataclass(frozen=True)
class SweepSummary:
    """State of a sweep when it was read."""

    path: str
    is_running: bool
    """True if a process drives it or trains one of its runs."""
    num_runs: int
    num_ended: int
    """Runs whose training is over."""
    num_failed: int
    """Runs that ended without a result."""
    verdict: str
    """Verdict of the last comparison in words; empty before it."""
    decisions: Mapping[str, str]
    """Decision of that comparison by variant, such as INCONCLUSIVE."""
    changed: float
    """UTC seconds of its last change."""


def list_sweeps(folder: Path) -> list[SweepSummary]:
    """Return the sweeps in a folder, the one that changed last first; none if there is no such folder."""
    sweeps = [SweepDir(file.parent) for file in folder.glob(f"*/{SweepDir(Path()).rule}")]
    summaries = [summarise(sweep) for sweep in sweeps]
    return sorted(summaries, key=lambda summary: -summary.changed)


def summarise(sweep: SweepDir) -> SweepSummary:
    """Read how far a sweep is."""
    runs = [*sweep.runs()]
    comparison = _read_object(sweep.comparison)
    states = [read_status(run).state for run in runs]
    return SweepSummary(
        path=str(sweep.path),
        is_running=owner(sweep.driver_lock) is not None or any(map(_is_running, runs)),
        num_runs=len(runs),
        num_ended=sum(state.ended for state in states),
        num_failed=sum(state in (State.failed, State.oom, State.refused, State.lost) for state in states),
        verdict=str(comparison.get("verdict", "")),
        decisions=_decisions(comparison.get("ladder")),
        changed=max(map(_change_time, [sweep.rule, sweep.comparison, *(run.status for run in runs)])),
    )


def _is_running(run: RunDir) -> bool:
    return read_status(run).state is State.running and worker_of(run) is not None


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none that can be read."""
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _decisions(ladder: Any) -> dict[str, str]:
    rows = ladder if isinstance(ladder, list) else []
    return {str(row.get("variant")): str(row.get("decision")) for row in rows if isinstance(row, dict)}


def _change_time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
