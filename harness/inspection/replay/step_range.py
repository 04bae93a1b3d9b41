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
class Stretch:
    """Updates `first` + 1 .. `last` of a run or a branch."""

    named: RunRef
    first: int
    last: int
    start: Checkpoint | None
    """That at `first`; None where the run is drawn anew. Of a branch it may be its parent's."""
    kept: tuple[int, ...]
    """Steps of the stretch at which the run has a good checkpoint."""
    skipped: tuple[str, ...]
    """A sentence for each damaged checkpoint."""

    @property
    def run(self) -> RunDir:
        return self.named.run


def find_stretch(where: Path | str, steps: int | None = None) -> Stretch:
    """From the step of RUN@STEP, or the last from which a checkpoint follows, to the next checkpoint, or
    so many steps.

    Raises UserError where no run lies there, where it is still at work, or where no step follows.
    """
    named = find_run(where)
    _check_rest(named)
    good, faults = _checkpoints(named)
    end = metrics.complete_until(named.run)[0]
    starts = _starts(named, good)
    first = named.step if named.step is not None else _first(starts, good, end)
    _check(named, first, steps, starts, faults, end)
    following = [step for step in good if first < step <= end]
    last = min(first + steps, end) if steps else min(following, default=end)
    origin = starts[first]
    start = None if origin is None else checkpoint_of(origin, first)
    kept = tuple(step for step in following if step <= last)
    return Stretch(named, first, last, start, kept, tuple(faults.values()))


def _check_rest(named: RunRef) -> None:
    trunk = named.run if named.provenance.parent is None else RunDir(named.run.path.resolve().parent)
    status = read_status(trunk)
    if status.state in (State.pending, State.running) and worker_of(trunk) is not None:
        raise UserError(
            f"{trunk.path} is still at work (step {status.step}): wait for its end, or `harness stop` it"
        )


def _checkpoints(named: RunRef) -> tuple[list[int], dict[int, str]]:
    """Steps of the good ones, and a sentence for each damaged one."""
    faults = {step: corruption_reason(named.run, step) for step in manifest_steps(named.run)}
    said = {step: f"the checkpoint at step {step} is damaged ({why})" for step, why in faults.items() if why}
    return [step for step in faults if step not in said], said


def _starts(named: RunRef, good: list[int]) -> dict[int, RunRef | None]:
    """Where the state of each step lies from which a replay may start; None: it is drawn anew."""
    own: dict[int, RunRef | None] = dict.fromkeys(good, named)
    parent = named.provenance.parent
    if parent is None:
        return {0: None} | own
    trunk, fork = find_run(named.run.path.resolve().parent), int(parent["step"])
    whole = fork in manifest_steps(trunk.run) and corruption_reason(trunk.run, fork) is None
    return ({fork: trunk} if whole else {}) | own


def _first(starts: Mapping[int, RunRef | None], good: list[int], end: int) -> int:
    """The last start from which a checkpoint follows; else the last from which a step does."""
    reached = [step for step in good if step <= end]
    before = [step for step in starts if step < (max(reached, default=end))]
    return max(before, default=max((step for step in starts if step < end), default=end))


def _check(
    named: RunRef,
    first: int,
    steps: int | None,
    starts: Mapping[int, RunRef | None],
    faults: Mapping[int, str],
    end: int,
) -> None:
    if steps is not None and steps < 1:
        raise UserError(f"--steps={steps}: give 1 or more, or leave it out to replay to the next checkpoint")
    others = [str(step) for step in starts if step < end]
    rest = f"it can be replayed from {', '.join(others)}" if others else "there is nothing to replay"
    if first in faults:
        raise UserError(f"{named.run.path}@{first}: {faults[first]}; {rest}")
    if first not in starts and named.step is not None:
        raise UserError(f"{named.run.path}@{first}: no checkpoint at that step; {rest}")
    if first not in starts or first >= end:
        raise UserError(f"{named.run.path}: its curve on disk ends at step {end}, so no step follows; {rest}")
