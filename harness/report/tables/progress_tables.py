"""Progress of a sweep in a table and in lines, the same in the terminal and on the live page."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.number_format import (
    MISSING,
    format_clock,
    format_count,
    format_loss,
    format_signed,
    plain_text,
)
from harness.report.frames.sweep_progress import DELTA_STEPS, RunProgress, SweepProgress
from harness.report.tables.text_table import Table, drop_columns, make_table

MAX_NAMED = 4
"""Number of runs that a line names."""
BAR_OF_RUN = 14
"""Width in columns of a run's progress bar."""


def summary_text(progress: SweepProgress) -> str:
    """Return the number of runs, the share that is done, the speed and the time left of a sweep."""
    left = progress.left
    speed = sum(run.tokens_per_second or 0.0 for run in progress.running)
    parts = [f"{len(progress.runs)} runs", f"{progress.done_share:.0%} done"]
    parts += [f"{format_count(round(speed))} tokens/s"] if speed else []
    parts += [left.text] if left is not None else []
    return ", ".join(parts)


def running_table(runs: Sequence[RunProgress], control: str) -> Table:
    """Build the table of running runs, with the share of training time spent waiting for input if known."""
    delta = plain_text(f"Δ {control}")
    columns = ("run", "lane", "phase", "", "step", "loss", delta, "tokens/s", "left", "input")
    content = make_table(columns, map(_run_row, runs))
    is_measured = any(run.status.input_share is not None for run in runs)
    return content if is_measured else drop_columns(content, ("input",))


def _run_row(run: RunProgress) -> tuple[str, ...]:
    devices = run.timeline[-1].width if run.timeline else None
    lane = MISSING if run.lane is None else str(run.lane)
    left, speed, share = run.seconds_left, run.tokens_per_second, run.status.input_share
    return (
        run.name, f"{lane} ×{devices}" if devices else lane, run.phase,
        "━" * round(BAR_OF_RUN * run.done_share), f"{run.status.step}/{run.steps}",
        format_loss(run.status.loss),
        f"{format_signed(run.delta.mean)} @{run.delta.step}" if run.delta else MISSING,
        format_count(round(speed)) if speed else MISSING,
        format_clock(left) if left is not None else MISSING,
        MISSING if share is None else f"{share:.1%}",
    )  # fmt: skip


def failure_text(run: RunProgress) -> str:
    """Return the state and the step of a run that failed, and why."""
    text = f"{run.name}: {run.status.state.value} at step {run.status.step}"
    return plain_text(text + (f" ({run.status.message})" if run.status.message else ""))


def queue_lines(progress: SweepProgress) -> list[str]:
    """Return a line each for queued runs, runs at an interim look, and ended runs."""
    names = ", ".join(run.name for run in progress.queue[:MAX_NAMED])
    remainder = f", and {len(progress.queue) - MAX_NAMED} more" if len(progress.queue) > MAX_NAMED else ""
    lines = [f"queue: {names}{remainder}"] if progress.queue else []
    if waiting := len(progress.waiting_at_look):
        lines.append(f"at an interim look, waiting for the decision at their scale: {waiting}")
    lines += [f"ended: {len(progress.ended)} of {len(progress.runs)}"]
    return [plain_text(line) for line in lines]


def delta_legend(progress: SweepProgress, runs: Sequence[RunProgress]) -> str:
    """Explain the difference from the control; '' if no run has one."""
    if not any(run.delta for run in runs):
        return ""
    control, steps = plain_text(progress.control), f"the last {DELTA_STEPS} steps that both have on disk"
    return f"Δ {control}: loss minus that of {control}, mean over {steps} (written at checkpoints)"


def damage_text(progress: SweepProgress) -> str:
    """Name the records that cannot be read: their runs are missing, or shown as not begun. '' without any."""
    names = [*progress.unreadable[:MAX_NAMED]]
    rest = len(progress.unreadable) - len(names)
    text = ", ".join(names) + (f" and {rest} more" if rest else "")
    return plain_text(f"damaged, so not shown as they are: {text}") if names else ""


def idle_text(progress: SweepProgress) -> str:
    """Return how to continue if no process is training and runs are unfinished; else ''."""
    if not progress.is_over or len(progress.ended) == len(progress.runs):
        return ""
    return "No process trains these runs now. The sweep command continues unfinished runs."
