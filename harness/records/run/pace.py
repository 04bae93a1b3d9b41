"""Course of a run: predicted seconds of its three parts, and what it has spent on them so far.

The first part lasts until the first step: the process, the data, the programs. The second are the steps, with
those of branches. The third is everything between and after them: evaluations, saves, the start of branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.run.status import State, Status
from harness.records.run.timeline import BEGIN, TRAIN, PhaseSpan

_QUEUED = (State.pending, State.running, State.waiting, State.preempted)
"""States of a run that will train."""
_RECORDED = ("startup", "train", "seconds", "steps")
"""Fields of a prediction in the ledger."""


BEGIN_SHARE = 0.5
"""Part of a start, over the rest of it, above which its first phase does not count: then it is a wait for
tokens, which the first runs of a sweep have and no later one."""


@dataclass(frozen=True)
class PredictedParts:
    """Predicted seconds of a run by part. Only their ratios between runs count where other runs have shown
    how long they take."""

    startup: float
    train: float
    pauses: float
    """Seconds between and after steps: evaluations, saves, the start of branches."""
    steps: int
    """Steps of the run and its branches, which take `train` in all."""

    @staticmethod
    def from_record(record: Any) -> PredictedParts | None:
        """Return the parts that the ledger has of a run's prediction; None if an earlier version wrote it."""
        values = [record.get(name) for name in _RECORDED] if isinstance(record, dict) else [None]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        if len(numbers) < len(_RECORDED):
            return None
        startup, train, seconds, steps = numbers
        return PredictedParts(startup, train, max(0.0, seconds - startup - train), int(steps))


@dataclass(frozen=True)
class RunCourse:
    """Course of one run at one moment."""

    scale: str
    variant: str
    block: str
    predicted: PredictedParts
    startup: float = 0.0
    """Seconds before the first step, of all attempts, without a wait for tokens."""
    train: float = 0.0
    """Seconds of steps."""
    pauses: float = 0.0
    """Seconds since the first step in which none was trained."""
    share: float = 0.0
    """Share of the steps that is done."""
    interval: tuple[float, float] | None = None
    """First and last moment of the current session, in UTC seconds; None for a run that has not begun."""
    is_active: bool = False
    is_over: bool = False
    """True for a run that ended or failed; one that is started again is in another state."""

    @property
    def has_steps(self) -> bool:
        """True if the run has trained a step."""
        return self.share > 0 and self.train > 0


def run_course(
    name: str,
    predicted: PredictedParts,
    spans: Sequence[PhaseSpan],
    status: Status,
    *,
    is_active: bool,
    session: float = 0.0,
) -> RunCourse:
    """Return the course of the run `<scale>/<variant>/seed<k>` from its status and the phases of its
    timeline. `session`: UTC seconds since which the sweep trains without a pause."""
    seconds, attempt, has_trained = dict.fromkeys((BEGIN, "startup", "train", "pauses"), 0.0), -1, False
    for span in spans:
        has_trained = (has_trained and span.attempt == attempt) or span.phase == TRAIN
        attempt = span.attempt
        part = "train" if span.phase == TRAIN else "pauses" if has_trained else "startup"
        seconds[BEGIN if span.phase == BEGIN else part] += span.seconds
    scale, variant, seed = name.split("/")
    session_spans = [span for span in spans if span.end > session]
    return RunCourse(
        scale,
        variant,
        f"{scale}/{seed}",
        predicted,
        share=min(1.0, (status.step + _branch_steps(spans)) / max(1, predicted.steps)),
        interval=(max(session, session_spans[0].start), session_spans[-1].end) if session_spans else None,
        is_active=is_active,
        is_over=not is_active and status.state not in _QUEUED,
        startup=seconds["startup"] + min(seconds[BEGIN], max(1.0, BEGIN_SHARE * seconds["startup"])),
        train=seconds["train"],
        pauses=seconds["pauses"],
    )


def _branch_steps(spans: Sequence[PhaseSpan]) -> int:
    steps: dict[float, tuple[int, int]] = {}
    for span in spans:
        if span.phase == TRAIN and span.share < 1:
            first, last = steps.get(span.share, (span.first, span.last))
            steps[span.share] = min(first, span.first), max(last, span.last)
    return sum(last - first for first, last in steps.values())
