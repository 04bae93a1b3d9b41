"""Diff of two checkpoints: weights, predictions, loss per example, divergence of their runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from harness.compare.checkpoints.diff_types import CheckpointDiff, CheckpointRef, PredictionDiff
from harness.compare.checkpoints.distances import compare_weights
from harness.inspection.diff.predictions import compare_predictions
from harness.inspection.diff.trajectory import distances_along, find_divergence
from harness.inspection.load_run import load_run, prepare_process
from harness.records.run.find_checkpoint import Checkpoint, find_checkpoint
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import code_hash_of

LOSS_TOLERANCE = 1e-4
"""Difference in nats from the recorded loss that rounding of other programs explains."""


def diff(first: Path | str, second: Path | str, *, trust: bool = False) -> CheckpointDiff:
    """Compare checkpoint `second` (b) with `first` (a), each RUN or RUN@STEP, on one simulated CPU device.

    RUN is its newest valid checkpoint. Raises UserError if one of them cannot be read, or without `trust` for
    unknown modules. The result says why a comparison is impossible.
    """
    a, b = find_checkpoint(first), find_checkpoint(second)
    prepare_process(a, b, trust=trust)
    runs = load_run(a), load_run(b)
    weights = compare_weights(runs[0].weights(a.step), runs[1].weights(b.step))
    predictions = compare_predictions(a, b, runs)
    same_run = a.run.path.resolve() == b.run.path.resolve()
    along = distances_along(runs[0], *sorted((a.step, b.step))) if same_run and a.step != b.step else ()
    return CheckpointDiff(
        a=_checkpoint_ref(a),
        b=_checkpoint_ref(b),
        weights=weights,
        function=predictions,
        divergence=None if same_run else find_divergence(a, b, runs),
        along=tuple(along),
        notes=tuple(_notes(a, b, predictions)),
    )


def picture_folder(first: Path | str) -> Path:
    """Return the folder for pictures of `diff(first, ...)`, `<sweep>/pictures`. Raises UserError."""
    return find_checkpoint(first).sweep.path / "pictures"


def _checkpoint_ref(checkpoint: Checkpoint) -> CheckpointRef:
    record, step = checkpoint.provenance, checkpoint.step
    tokens, path = step * record.facts.tokens_per_step, str(checkpoint.run.path)
    return CheckpointRef(checkpoint.name, path, step, tokens, record.parameters, record.code_hash)


def _notes(a: Checkpoint, b: Checkpoint, function: PredictionDiff) -> Iterator[str]:
    """Yield a sentence for each fact that limits the comparison."""
    for checkpoint in (a, b):
        yield from (f"{sentence}." for sentence in checkpoint.skipped)
    codes = {checkpoint.provenance.code_hash for checkpoint in (a, b)}
    if len(codes) == 2:
        yield "The two were trained with different code."
    if codes != {code_hash_of(checkpoint.config) for checkpoint in (a, b)}:
        yield "The code has changed since training. The predictions are those of the current code."
    means = ({row.domain: getattr(row, side) for row in function.losses} for side in ("loss_a", "loss_b"))
    for checkpoint, computed in zip((a, b), means, strict=True):
        yield from _loss_mismatch_notes(checkpoint, computed)


def _loss_mismatch_notes(checkpoint: Checkpoint, computed: dict[str, float]) -> Iterator[str]:
    """Yield a sentence for each domain whose recorded held-out loss at this step differs."""
    rows = read_curve(checkpoint.run, "evals").filter(pl.col("step") == checkpoint.step)
    for domain, recorded in rows.select("domain", "loss").iter_rows():
        if domain in computed and not abs(computed[domain] - recorded) <= LOSS_TOLERANCE:
            yield (
                f"{checkpoint.name} recorded a held-out loss of {recorded:.4f} on {domain}, but this code "
                f"computes {computed[domain]:.4f}, so the predictions are not those of the training."
            )
