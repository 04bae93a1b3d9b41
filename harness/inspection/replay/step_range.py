"""Range of steps that a replay repeats: from a state that can be restored, along the curve on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UserError
from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import corruption_reason, manifest_steps
from harness.records.run.find_checkpoint import Checkpoint, RunRef, checkpoint_of, find_run
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, read_status


@dataclass(frozen=True)
class StepRange:
    """Optimizer steps `first` + 1 to `last` of a run or a branch."""

    run_ref: RunRef
    first: int
    last: int
    start: Checkpoint | None
    """Checkpoint at `first`, for a branch possibly of its parent; None: the parameters are drawn again."""
    checkpoint_steps: tuple[int, ...]
    """Steps of the range at which the run has a valid checkpoint."""
    evaluated_steps: tuple[int, ...]
    """Steps of the range, `first` included, at which the run recorded an evaluation."""
    skipped: tuple[str, ...]
    """Sentence for each damaged checkpoint and part of the curve."""

    @property
    def run(self) -> RunDir:
        """Directory of the run."""
        return self.run_ref.run


def find_step_range(where: Path | str, steps: int | None = None) -> StepRange:
    """Return the range from RUN@STEP to the next checkpoint, or over `steps` steps.

    RUN starts at the last possible step before a checkpoint, or so early that the range has an evaluation, if
    the run has one. Raises UserError if there is no run, it still trains, or no step follows.
    """
    run_ref = find_run(where)
    _check_not_running(run_ref)
    valid, faults = _valid_and_damaged(run_ref)
    end, damaged_parts = metrics.complete_until(run_ref.run)
    starts = _possible_starts(run_ref, valid, faults)
    evaluations = [step for step in _evaluated_steps(run_ref) if step <= end]
    first = run_ref.step if run_ref.step is not None else _default_start(starts, valid, end)
    last = _end_of_range(first, steps, valid, end)
    is_default = run_ref.step is None and steps is None
    if is_default and evaluations and not any(first <= step <= last for step in evaluations):
        first = max((step for step in starts if step <= evaluations[-1] and step < end), default=first)
        last = max(evaluations[-1], _end_of_range(first, None, valid, end))
    damage = [*(f"the curve is damaged ({part})" for part in damaged_parts), *faults.values()]
    _check_range(run_ref, first, steps, starts, faults, end, damage)
    origin = starts[first]
    start = None if origin is None else checkpoint_of(origin, first)
    checkpoint_steps = tuple(step for step in valid if first < step <= last)
    evaluated_steps = tuple(step for step in evaluations if first <= step <= last)
    return StepRange(run_ref, first, last, start, checkpoint_steps, evaluated_steps, tuple(damage))


def _end_of_range(first: int, steps: int | None, valid: list[int], end: int) -> int:
    following = [step for step in valid if first < step <= end]
    return min(first + steps, end) if steps else min(following, default=end)


def _evaluated_steps(run_ref: RunRef) -> list[int]:
    """Return the steps of the recorded evaluations, ascending."""
    return sorted(set(metrics.read_curve(run_ref.run, "evals")["step"].to_list()))


def _check_not_running(run_ref: RunRef) -> None:
    trunk = run_ref.run if run_ref.provenance.parent is None else RunDir(run_ref.run.path.resolve().parent)
    status = read_status(trunk)
    if status.state in (State.pending, State.running) and worker_of(trunk) is not None:
        way_out = "Wait for its end, or stop it with `harness stop`."
        raise UserError(f"{trunk.path} is still training (step {status.step}). {way_out}")


def _valid_and_damaged(run_ref: RunRef) -> tuple[list[int], dict[int, str]]:
    """Return the steps of valid checkpoints, and a sentence for each damaged one by step."""
    reasons = {step: corruption_reason(run_ref.run, step) for step in manifest_steps(run_ref.run)}
    text = "the checkpoint at step {} is damaged ({})"
    damage = {step: text.format(step, reason) for step, reason in reasons.items() if reason}
    return [step for step in reasons if step not in damage], damage


def _possible_starts(run_ref: RunRef, good: list[int], faults: dict[int, str]) -> dict[int, RunRef | None]:
    """Return the run whose checkpoint holds each possible start step; None: the parameters are drawn. A
    damaged checkpoint of the parent, from which a branch starts, is added to `faults`."""
    starts: dict[int, RunRef | None] = dict.fromkeys(good, run_ref)
    parent = run_ref.provenance.parent
    if parent is None:
        return {0: None} | starts
    trunk, fork = find_run(run_ref.run.path.resolve().parent), int(parent["step"])
    if fork not in manifest_steps(trunk.run):
        return starts
    if reason := corruption_reason(trunk.run, fork):
        faults[fork] = f"the checkpoint of its parent at step {fork} is damaged ({reason})"
        return starts
    return {fork: trunk} | starts


def _default_start(starts: Mapping[int, RunRef | None], good: list[int], end: int) -> int:
    """Return the last start before a valid checkpoint, else the last one before the end of the curve."""
    on_curve = [step for step in good if step <= end]
    before = [step for step in starts if step < (max(on_curve, default=end))]
    return max(before, default=max((step for step in starts if step < end), default=end))


def _check_range(
    run_ref: RunRef,
    first: int,
    steps: int | None,
    starts: Mapping[int, RunRef | None],
    faults: Mapping[int, str],
    end: int,
    damage: Sequence[str],
) -> None:
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out to replay to the next checkpoint")
    alternatives = [str(step) for step in starts if step < end]
    path, way_out = run_ref.run.path, "There is nothing to replay."
    if alternatives:
        way_out = f"It can be replayed from {', '.join(alternatives)}."
    if first in faults:
        raise UserError(f"{path}@{first}: {faults[first]}. {way_out}")
    if first not in starts and run_ref.step is not None:
        raise UserError(f"{path}@{first}: no checkpoint at that step. {way_out}")
    if first not in starts or first >= end:
        reason = f", since {damage[0]}" if damage else ""
        raise UserError(
            f"{path}: its curve on disk ends at step {end}, so no step follows{reason}. {way_out}"
        )
