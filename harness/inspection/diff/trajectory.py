"""Divergence of two runs, and distances along one run, from curves and all saved checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from harness.compare.checkpoints.diff_types import Divergence, StepDistance
from harness.compare.checkpoints.distances import compare_weights, divergence_point, weight_divergence_point
from harness.inspection.load_run import LoadedRun
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import read_manifest, valid_steps
from harness.records.run.find_checkpoint import Checkpoint, parent_of
from harness.records.run.metrics import read_curve


def find_divergence(a: Checkpoint, b: Checkpoint, runs: tuple[LoadedRun, LoadedRun]) -> Divergence:
    """Compare two runs from their start, as far as both have rows and checkpoints."""
    (steps_a, loss_a), (steps_b, loss_b) = _loss_curve(a), _loss_curve(b)
    runs_a, runs_b = _checkpoint_runs(a), _checkpoint_runs(b)
    common = sorted(runs_a.keys() & runs_b.keys())
    distances = [
        _step_distance(step, replace(runs[0], run=runs_a[step]), step, replace(runs[1], run=runs_b[step]))
        for step in common
    ]
    return Divergence(
        divergence_point(steps_a, loss_a, steps_b, loss_b),
        weight_divergence_point([distance for distance in distances if distance.distance.parameters]),
        tuple(distances),
        _same_examples(runs_a[common[-1]], runs_b[common[-1]], common[-1]) if common else None,
    )


def distances_along(loaded_run: LoadedRun, first: int, last: int) -> Iterator[StepDistance]:
    """Yield the weight distance from the checkpoint at `first` to each one up to `last`."""
    for step in valid_steps(loaded_run.run)[0]:
        if first <= step <= last:
            yield _step_distance(first, loaded_run, step, loaded_run)


def _step_distance(step_a: int, a: LoadedRun, step_b: int, b: LoadedRun) -> StepDistance:
    return StepDistance(step_b, compare_weights(a.weights(step_a), b.weights(step_b)).total)


def _loss_curve(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and training losses from the start; a branch includes its parent's up to the fork."""
    rows = read_curve(checkpoint.run, "steps")
    if origin := parent_of(checkpoint):
        parent, fork = origin
        rows = pl.concat([read_curve(parent, "steps").filter(pl.col("step") <= fork), rows])
    return rows["step"].to_numpy(), rows["loss"].to_numpy()


def _checkpoint_runs(checkpoint: Checkpoint) -> dict[int, RunDir]:
    """Return the run of each valid checkpoint by step; a branch includes its parent's up to the fork."""
    runs: dict[int, RunDir] = {}
    if origin := parent_of(checkpoint):
        parent, fork = origin
        runs = {step: parent for step in valid_steps(parent)[0] if step <= fork}
    return runs | dict.fromkeys(valid_steps(checkpoint.run)[0], checkpoint.run)


def _same_examples(a: RunDir, b: RunDir, step: int) -> bool | None:
    """Return whether the rolling hashes over all examples up to the step agree; None if one is missing."""
    hashes = [manifest.example_hash for run in (a, b) if (manifest := read_manifest(run, step))]
    return hashes[0] == hashes[1] if len(hashes) == 2 else None
