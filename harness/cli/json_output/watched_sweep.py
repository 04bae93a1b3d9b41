"""Progress of a sweep at one moment, as `harness watch --once --json` prints it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.run.status import State
from harness.report.frames.sweep_progress import RunProgress, SweepProgress


@dataclass(frozen=True)
class WatchedRun:
    """Progress of one run."""

    name: str
    """`<scale>/<variant>/seed<k>`."""
    scale: str
    variant: str
    seed: int
    state: State
    is_running: bool
    """True if a process trains it now."""
    phase: str
    activity: str
    """Text of what a long phase does now."""
    step: int
    steps: int
    """Steps of the whole run."""
    loss: float | None
    difference: float | None
    """Mean loss minus that of the control, over the last steps that both have on disk."""
    difference_step: int | None
    """Last of these steps."""
    tokens_per_second: float | None
    seconds_left: float | None
    lane: int | None
    message: str
    """Sentence that explains an end state."""


@dataclass(frozen=True)
class WatchedSweep:
    """Progress of a sweep. A number that is not known is null."""

    name: str
    control: str
    time: float
    """UTC seconds of this moment."""
    is_over: bool
    """True if no process is left that could change anything."""
    done_share: float
    """Share of the model FLOPs that are done."""
    seconds_left: float | None
    """Predicted seconds to the end of the last run."""
    utilisation: float | None
    """Share of the device-seconds that trained."""
    num_running: int
    num_queued: int
    num_waiting: int
    """Runs at an interim look."""
    num_ended: int
    num_failed: int
    unreadable: tuple[str, ...]
    """Records that cannot be read, as paths in the sweep. A run without its run.json is not listed."""
    runs: tuple[WatchedRun, ...]


def watched_sweep(progress: SweepProgress) -> WatchedSweep:
    """Return what is printed of a sweep's progress."""
    left, used = progress.left, progress.utilisation
    return WatchedSweep(
        name=progress.name,
        control=progress.control,
        time=progress.now,
        is_over=progress.is_over,
        done_share=progress.done_share,
        seconds_left=left and left.middle,
        utilisation=used and used.share,
        num_running=len(progress.running),
        num_queued=len(progress.queue),
        num_waiting=len(progress.waiting_at_look),
        num_ended=len(progress.ended),
        num_failed=len(progress.failures),
        unreadable=tuple(progress.unreadable),
        runs=tuple(map(_watched_run, progress.runs)),
    )


def _watched_run(run: RunProgress) -> WatchedRun:
    record, status = run.record, run.status
    return WatchedRun(
        name=run.name,
        scale=record.scale,
        variant=record.variant,
        seed=record.seed,
        state=status.state,
        is_running=run.is_running,
        phase=run.phase,
        activity=status.activity,
        step=status.step,
        steps=run.steps,
        loss=status.loss,
        difference=run.delta and run.delta.mean,
        difference_step=run.delta and run.delta.step,
        tokens_per_second=run.tokens_per_second if run.is_running else None,
        seconds_left=run.seconds_left if run.is_running else None,
        lane=run.lane,
        message=status.message,
    )
