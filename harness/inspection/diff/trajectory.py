"""Where two runs part, and how far one run has gone: curves and all kept checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from harness.compare.checkpoints.diff_types import Divergence, StepDistance
from harness.compare.checkpoints.distances import compare_weights, divergence_point, weight_divergence_point
from harness.inspection.load_run import Subject
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import read_manifest, valid_steps
from harness.records.run.find_checkpoint import Checkpoint, parent_of
from harness.records.run.metrics import read_curve


def diverge(a: Checkpoint, b: Checkpoint, subjects: tuple[Subject, Subject]) -> Divergence:
    """Two runs from their start, as far as both have rows and checkpoints."""
    (steps_a, loss_a), (steps_b, loss_b) = _losses(a), _losses(b)
    kept_a, kept_b = _kept(a), _kept(b)
    common = sorted(kept_a.keys() & kept_b.keys())
    distances = [
        _distance(step, replace(subjects[0], run=kept_a[step]), step, replace(subjects[1], run=kept_b[step]))
        for step in common
    ]
    return Divergence(
        divergence_point(steps_a, loss_a, steps_b, loss_b),
        weight_divergence_point([each for each in distances if each.distance.parameters]),
        tuple(distances),
        _same_examples(kept_a[common[-1]], kept_b[common[-1]], common[-1]) if common else None,
    )


def go_along(subject: Subject, first: int, last: int) -> Iterator[StepDistance]:
    """From the checkpoint at `first` to each that is kept up to `last`."""
    for step in valid_steps(subject.run)[0]:
        if first <= step <= last:
            yield _distance(first, subject, step, subject)


def _distance(step_a: int, a: Subject, step_b: int, b: Subject) -> StepDistance:
    return StepDistance(step_b, compare_weights(a.weights(step_a), b.weights(step_b)).total)


def _losses(here: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Steps and their training losses from the start; those of a branch begin in its parent."""
    rows = read_curve(here.run, "steps")
    if origin := parent_of(here):
        parent, fork = origin
        rows = pl.concat([read_curve(parent, "steps").filter(pl.col("step") <= fork), rows])
    return rows["step"].to_numpy(), rows["loss"].to_numpy()


def _kept(here: Checkpoint) -> dict[int, RunDir]:
    """Where each good checkpoint lies, by step; those of a branch begin in its parent."""
    kept: dict[int, RunDir] = {}
    if origin := parent_of(here):
        parent, fork = origin
        kept = {step: parent for step in valid_steps(parent)[0] if step <= fork}
    return kept | dict.fromkeys(valid_steps(here.run)[0], here.run)


def _same_examples(a: RunDir, b: RunDir, step: int) -> bool | None:
    """The hash rolls over all examples from the first on, so that one step speaks for those before it."""
    hashes = [manifest.example_hash for run in (a, b) if (manifest := read_manifest(run, step))]
    return hashes[0] == hashes[1] if len(hashes) == 2 else None
