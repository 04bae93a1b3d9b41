"""Two checkpoints beside each other: weights, function, loss by example, where their runs part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from harness.compare.checkpoints.diff_types import CheckpointDiff, CheckpointRef, PredictionDiff, StepDistance
from harness.compare.checkpoints.distances import compare_weights
from harness.inspection.diff.predictions import compare_function
from harness.inspection.diff.trajectory import diverge, go_along
from harness.inspection.load_run import Subject, open_subject, prepare_process
from harness.records.run.find_checkpoint import Checkpoint, find_checkpoint
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import code_of

ROUNDING = 1e-4
"""Nats by which a loss may differ from the one that the run wrote down: other programs round otherwise."""


def diff(one: Path | str, other: Path | str) -> CheckpointDiff:
    """What RUN or RUN@STEP `other` (b) is against `one` (a), on one simulated CPU device.

    Without a step the newest good checkpoint is taken. Raises UserError where a run or a checkpoint
    cannot be read; what two that can be read have not in common is said in the result.
    """
    a, b = find_checkpoint(one), find_checkpoint(other)
    prepare_process(a.config, b.config)
    subjects = open_subject(a), open_subject(b)
    weights = compare_weights(subjects[0].weights(a.step), subjects[1].weights(b.step))
    function = compare_function(a, b, subjects)
    one_run = a.run.path.resolve() == b.run.path.resolve()
    return CheckpointDiff(
        a=_side(a),
        b=_side(b),
        weights=weights,
        function=function,
        divergence=None if one_run else diverge(a, b, subjects),
        along=_along(a, b, subjects[0]) if one_run else (),
        notes=tuple(_notes(a, b, function)),
    )


def picture_folder(one: Path | str) -> Path:
    """Where the pictures of `diff(one, ...)` belong: `<sweep of one>/pictures`. Raises UserError."""
    return find_checkpoint(one).sweep.path / "pictures"


def _side(here: Checkpoint) -> CheckpointRef:
    record = here.provenance
    tokens = here.step * record.facts.tokens_per_step
    return CheckpointRef(
        here.name, str(here.run.path), here.step, tokens, record.parameters, record.code_hash
    )


def _along(a: Checkpoint, b: Checkpoint, subject: Subject) -> tuple[StepDistance, ...]:
    first, last = sorted([a.step, b.step])
    return tuple(go_along(subject, first, last)) if first < last else ()


def _notes(a: Checkpoint, b: Checkpoint, function: PredictionDiff) -> Iterator[str]:
    """What a reader must know to believe the numbers, a sentence each."""
    for here in (a, b):
        yield from (f"{sentence}." for sentence in here.skipped)
    codes = {here.provenance.code_hash for here in (a, b)}
    if len(codes) == 2:
        yield "The two were trained under different code."
    if codes != {code_of(here.config) for here in (a, b)}:
        yield "The code has changed since: what they answer is as this code computes it."
    means = ({row.domain: getattr(row, side) for row in function.losses} for side in ("loss_a", "loss_b"))
    for here, computed in zip((a, b), means, strict=True):
        yield from _contradictions(here, computed)


def _contradictions(here: Checkpoint, computed: dict[str, float]) -> Iterator[str]:
    """Where the run itself wrote down another held-out loss at this step."""
    rows = read_curve(here.run, "evals").filter(pl.col("step") == here.step)
    for domain, recorded in rows.select("domain", "loss").iter_rows():
        if domain in computed and not abs(computed[domain] - recorded) <= ROUNDING:
            yield (
                f"{here.name} wrote down a held-out loss of {recorded:.4f} on {domain}, "
                f"but this code computes {computed[domain]:.4f}: these are not the numbers of its training."
            )
