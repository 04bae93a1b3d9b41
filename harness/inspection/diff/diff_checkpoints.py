"""Two checkpoints beside each other: weights, function, loss by example, where their runs part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from harness.compare.checkpoints.diff_types import CheckpointDiff, CheckpointRef, PredictionDiff, StepDistance
from harness.compare.checkpoints.distances import compare_weights
from harness.inspection.diff.predictions import compare_predictions
from harness.inspection.diff.trajectory import distances_along, find_divergence
from harness.inspection.load_run import LoadedRun, load_run, prepare_process
from harness.records.run.find_checkpoint import Checkpoint, find_checkpoint
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import code_hash_of

LOSS_TOLERANCE = 1e-4
"""Nats by which a loss may differ from the one that the run wrote down: other programs round otherwise."""


def diff(first: Path | str, second: Path | str) -> CheckpointDiff:
    """What RUN or RUN@STEP `other` (b) is against `one` (a), on one simulated CPU device.

    Without a step the newest good checkpoint is taken. Raises UserError where a run or a checkpoint
    cannot be read; what two that can be read have not in common is said in the result.
    """
    a, b = find_checkpoint(first), find_checkpoint(second)
    prepare_process(a.config, b.config)
    runs = load_run(a), load_run(b)
    weights = compare_weights(runs[0].weights(a.step), runs[1].weights(b.step))
    predictions = compare_predictions(a, b, runs)
    same_run = a.run.path.resolve() == b.run.path.resolve()
    return CheckpointDiff(
        a=_checkpoint_ref(a),
        b=_checkpoint_ref(b),
        weights=weights,
        function=predictions,
        divergence=None if same_run else find_divergence(a, b, runs),
        along=_distances_between(a, b, runs[0]) if same_run else (),
        notes=tuple(_notes(a, b, predictions)),
    )


def picture_folder(first: Path | str) -> Path:
    """Where the pictures of `diff(one, ...)` belong: `<sweep of one>/pictures`. Raises UserError."""
    return find_checkpoint(first).sweep.path / "pictures"


def _checkpoint_ref(checkpoint: Checkpoint) -> CheckpointRef:
    record = checkpoint.provenance
    tokens = checkpoint.step * record.facts.tokens_per_step
    return CheckpointRef(
        checkpoint.name,
        str(checkpoint.run.path),
        checkpoint.step,
        tokens,
        record.parameters,
        record.code_hash,
    )


def _distances_between(a: Checkpoint, b: Checkpoint, run: LoadedRun) -> tuple[StepDistance, ...]:
    first, last = sorted([a.step, b.step])
    return tuple(distances_along(run, first, last)) if first < last else ()


def _notes(a: Checkpoint, b: Checkpoint, function: PredictionDiff) -> Iterator[str]:
    """What a reader must know to believe the numbers, a sentence each."""
    for checkpoint in (a, b):
        yield from (f"{sentence}." for sentence in checkpoint.skipped)
    codes = {here.provenance.code_hash for here in (a, b)}
    if len(codes) == 2:
        yield "The two were trained under different code."
    if codes != {code_hash_of(here.config) for here in (a, b)}:
        yield "The code has changed since: what they answer is as this code computes it."
    means = ({row.domain: getattr(row, side) for row in function.losses} for side in ("loss_a", "loss_b"))
    for checkpoint, computed in zip((a, b), means, strict=True):
        yield from _loss_mismatch_notes(checkpoint, computed)


def _loss_mismatch_notes(checkpoint: Checkpoint, computed: dict[str, float]) -> Iterator[str]:
    """Where the run itself wrote down another held-out loss at this step."""
    rows = read_curve(checkpoint.run, "evals").filter(pl.col("step") == checkpoint.step)
    for domain, recorded in rows.select("domain", "loss").iter_rows():
        if domain in computed and not abs(computed[domain] - recorded) <= LOSS_TOLERANCE:
            yield (
                f"{checkpoint.name} wrote down a held-out loss of {recorded:.4f} on {domain}, "
                f"but this code computes {computed[domain]:.4f}: these are not the numbers of its training."
            )
