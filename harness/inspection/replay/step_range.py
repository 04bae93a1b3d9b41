"""Which steps of a run are replayed: from a state that can be had again, along the curve that is on disk."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Updates `first` + 1 .. `last` of a run or a branch."""

    run_ref: RunRef
    first: int
    last: int
    start: Checkpoint | None
    """That at `first`; None where the run is drawn anew. Of a branch it may be its parent's."""
    checkpoint_steps: tuple[int, ...]
    """Steps of the stretch at which the run has a good checkpoint."""
    skipped: tuple[str, ...]
    """A sentence for each damaged checkpoint."""

    @property
    def run(self) -> RunDir:
        return self.run_ref.run


def find_step_range(where: Path | str, steps: int | None = None) -> StepRange:
    """From the step of RUN@STEP, or the last from which a checkpoint follows, to the next checkpoint, or
    so many steps.

    Raises UserError where no run lies there, where it is still at work, or where no step follows.
    """
    run_ref = find_run(where)
    _check_not_running(run_ref)
    valid, faults = _valid_and_damaged(run_ref)
    end = metrics.complete_until(run_ref.run)[0]
    starts = _possible_starts(run_ref, valid)
    first = run_ref.step if run_ref.step is not None else _default_start(starts, valid, end)
    _check_range(run_ref, first, steps, starts, faults, end)
    following = [step for step in valid if first < step <= end]
    last = min(first + steps, end) if steps else min(following, default=end)
    origin = starts[first]
    start = None if origin is None else checkpoint_of(origin, first)
    checkpoint_steps = tuple(step for step in following if step <= last)
    return StepRange(run_ref, first, last, start, checkpoint_steps, tuple(faults.values()))


def _check_not_running(run_ref: RunRef) -> None:
    trunk = run_ref.run if run_ref.provenance.parent is None else RunDir(run_ref.run.path.resolve().parent)
    status = read_status(trunk)
    if status.state in (State.pending, State.running) and worker_of(trunk) is not None:
        raise UserError(
            f"{trunk.path} is still at work (step {status.step}): wait for its end, or `harness stop` it"
        )


def _valid_and_damaged(run_ref: RunRef) -> tuple[list[int], dict[int, str]]:
    """Steps of the good ones, and a sentence for each damaged one."""
    reasons = {step: corruption_reason(run_ref.run, step) for step in manifest_steps(run_ref.run)}
    damage = {
        step: f"the checkpoint at step {step} is damaged ({why})" for step, why in reasons.items() if why
    }
    return [step for step in reasons if step not in damage], damage


def _possible_starts(run_ref: RunRef, good: list[int]) -> dict[int, RunRef | None]:
    """Where the state of each step lies from which a replay may start; None: it is drawn anew."""
    starts: dict[int, RunRef | None] = dict.fromkeys(good, run_ref)
    parent = run_ref.provenance.parent
    if parent is None:
        return {0: None} | starts
    trunk, fork = find_run(run_ref.run.path.resolve().parent), int(parent["step"])
    valid = fork in manifest_steps(trunk.run) and corruption_reason(trunk.run, fork) is None
    return ({fork: trunk} if valid else {}) | starts


def _default_start(starts: Mapping[int, RunRef | None], good: list[int], end: int) -> int:
    """The last start from which a checkpoint follows; else the last from which a step does."""
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
) -> None:
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out to replay to the next checkpoint")
    alternatives = [str(step) for step in starts if step < end]
    way_out = (
        f"it can be replayed from {', '.join(alternatives)}" if alternatives else "there is nothing to replay"
    )
    if first in faults:
        raise UserError(f"{run_ref.run.path}@{first}: {faults[first]}; {way_out}")
    if first not in starts and run_ref.step is not None:
        raise UserError(f"{run_ref.run.path}@{first}: no checkpoint at that step; {way_out}")
    if first not in starts or first >= end:
        raise UserError(
            f"{run_ref.run.path}: its curve on disk ends at step {end}, so no step follows; {way_out}"
        )
