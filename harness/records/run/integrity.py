"""Integrity check of an ended run, before a repeated command accepts its results."""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness.core import atomic_files
from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest as manifest
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import manifest_steps, read_manifest, valid_steps
from harness.records.run.example_hash import read_examples
from harness.records.run.provenance import read_provenance
from harness.records.run.sample_quality import read_sample_grid, read_sample_quality
from harness.records.run.status import State, Status, read_status


def find_damage(run: RunDir, shares: Sequence[float] = ()) -> list[str]:
    """Return a sentence for each damaged or missing record of an ended run, its branches and `shares`."""
    branches = {branch.path: branch for branch in (*map(run.branch, shares), *run.branches())}
    return [fault for directory in (run, *branches.values()) for fault in _find_own_damage(directory)]


def branch_is_complete(branch: RunDir) -> bool:
    """Return whether a branch has finished or diverged and its records are intact."""
    return read_status(branch).state in (State.finished, State.diverged) and not _find_own_damage(branch)


def damaged_records(run: RunDir, start: int, last: int, status: Status | None) -> list[str]:
    """Return a sentence for each damaged record of a run or branch that a verdict reads, except run.json, the
    config and the evaluations. start, last: see `metrics.intact_parts`; status: what was read of it."""
    records = {run.status: lambda _: status, run.examples: read_examples, run.samples: read_sample_quality}
    damaged = [path.name for path, read in records.items() if os.path.lexists(path) and read(run) is None]
    problem = metrics.intact_parts(run, "steps", start, last)[1]
    return [*(f"{name} is damaged" for name in damaged), *filter(None, [problem])]


def _find_own_damage(run: RunDir) -> list[str]:
    if read_provenance(run) is None:
        return [f"{run.run}: the file is missing or damaged"]
    end, damage = metrics.complete_until(run)
    faults = damage + valid_steps(run, trust_memory=True)[1]
    status = read_status(run)
    if not status.state.ended:
        return [*faults, f"{run.status}: the file is missing or damaged, or the run has not ended"]
    if end < status.step:
        faults.append(f"{run.metrics}: the curve ends at step {end} of {status.step}")
    return faults + (_missing_at_end(run, status.step) if status.state is State.finished else [])


def _missing_at_end(run: RunDir, step: int) -> list[str]:
    """Check what a finished run must have at its last step: a checkpoint and the hash of its examples."""
    if step not in manifest_steps(run):
        return [f"{run.checkpoint(step)}: the checkpoint is missing"]
    manifest, examples = read_manifest(run, step), read_examples(run)
    if manifest and (examples or {}) | {"steps": step, "hash": manifest.example_hash} != examples:
        return [f"{run.examples}: the file is missing or damaged"]
    if run.samples.exists() and read_sample_quality(run) is None:
        return [f"{run.samples}: the file is damaged"]
    if run.sample_grid.exists() and read_sample_grid(run) is None:
        return [f"{run.sample_grid}: the picture is damaged"]
    return []


def remove_partial_files(run: RunDir) -> None:
    """Remove files that kills left half written. Call only while nobody trains the run."""
    for directory in (run, *run.branches()):
        for folder in (directory.path, directory.metrics, directory.checkpoints):
            atomic_files.remove_temp_files(folder)
        manifest.remove_incomplete_checkpoints(directory)
