"""How a sweep stands now, from its directories alone: who drives it or trains in it is only looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from harness.compare.inputs.decision_rule import read_json_object
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import list_parts, read_curve
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.run_lock import owner, worker_of
from harness.records.run.status import State, Status, read_status
from harness.records.run.timeline import BEGIN, TRAIN, PhaseSpan, TimelineEntry, phase_spans, read_timeline
from harness.records.run.utilisation import Utilisation, active_sessions, utilisation
from harness.records.sweep import ledger

FAILED = (State.failed, State.oom, State.refused, State.lost, State.diverged)
DELTA_STEPS = 16
"""Steps over whose mean two losses are compared: single ones jump with what their batch holds."""
T = TypeVar("T")


@dataclass(frozen=True)
class LossDelta:
    """Mean loss of a run minus that of its block's control, over the last steps that both have on disk."""

    mean: float
    step: int


@dataclass(frozen=True)
class RunProgress:
    """One run."""

    name: str
    """`<scale>/<variant>/seed<k>`."""
    record: Provenance
    status: Status
    is_running: bool
    timeline: Sequence[TimelineEntry]
    lane: int | None
    """Its place in its block."""
    delta: LossDelta | None
    now: float

    @property
    def phase(self) -> str:
        last = self.timeline[-1] if self.timeline else None
        if last is None or last.attempt != self.status.attempt:
            return self.status.phase or BEGIN
        return last.phase if last.share == 1 else f"branch {last.share:.0%}: {last.phase}"

    @property
    def steps(self) -> int:
        return self.record.facts.steps

    @property
    def done_share(self) -> float:
        """Share of its training that is over, or will not come."""
        return 1.0 if self.status.state.is_final else min(1.0, self.status.step / max(1, self.steps))

    @property
    def flops(self) -> float:
        return self.record.tokens * self.record.facts.flops_per_token

    @cached_property
    def spans(self) -> list[PhaseSpan]:
        return phase_spans(self.timeline, self.now if self.is_running else None)

    @property
    def steps_per_second(self) -> float | None:
        """Steps a second since its attempt began to train, pauses to evaluate and save included."""
        return _steps_per_second(self.timeline, self.status, self.now)

    @property
    def tokens_per_second(self) -> float | None:
        """At its pace; of its last step alone before there is one."""
        if self.steps_per_second is None:
            return self.status.tokens_per_second
        return self.steps_per_second * self.record.facts.tokens_per_step

    @property
    def seconds_left(self) -> float | None:
        return (
            max(0, self.steps - self.status.step) / self.steps_per_second if self.steps_per_second else None
        )


@dataclass(frozen=True)
class SweepProgress:
    """All runs of a sweep at one moment."""

    name: str
    control: str
    runs: Sequence[RunProgress]
    driver_alive: bool
    """A driver is at work, or a worker that has yet to begin with some of its runs."""
    now: float

    def _select(self, condition: Callable[[RunProgress], bool]) -> list[RunProgress]:
        return [run for run in self.runs if condition(run)]

    @cached_property
    def running(self) -> list[RunProgress]:
        """Block by block, the largest first, in each the control first."""
        return sorted(self._select(lambda run: run.is_running), key=self._display_order)

    def _display_order(self, run: RunProgress) -> tuple:
        record = run.record
        control = record.variant == self.control
        return -record.tokens * record.parameters, record.scale, record.seed, not control, record.variant

    @cached_property
    def failures(self) -> list[RunProgress]:
        return self._select(lambda run: run.status.state in FAILED and not run.is_running)

    @cached_property
    def ended(self) -> list[RunProgress]:
        return self._select(lambda run: run.status.state in (State.finished, State.stopped))

    @cached_property
    def waiting_at_look(self) -> list[RunProgress]:
        return self._select(lambda run: run.status.state is State.waiting and not run.is_running)

    @cached_property
    def queue(self) -> list[RunProgress]:
        """Not begun, or left before its end without having failed."""
        elsewhere = (*self.running, *self.failures, *self.ended, *self.waiting_at_look)
        names = {run.name for run in elsewhere}
        return self._select(lambda run: run.name not in names)

    @property
    def is_over(self) -> bool:
        """Nothing will change by itself."""
        return not self.driver_alive and not self.running

    @property
    def done_share(self) -> float:
        """Of the sweep's model FLOPs."""
        total = sum(run.flops for run in self.runs)
        return sum(run.flops * run.done_share for run in self.runs) / total if total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace since the sweep was last taken up; None before there is one."""
        sessions = active_sessions([span for run in self.runs for span in run.spans])
        if not sessions or not self.running:
            return None
        begin = sessions[-1][0]
        flops_since = sum(run.flops / max(1, run.steps) * _steps_since(run, begin) for run in self.runs)
        left = sum(run.flops * (1 - run.done_share) for run in self.runs)
        return left * (self.now - begin) / flops_since if flops_since > 0 else None

    @property
    def utilisation(self) -> Utilisation | None:
        return utilisation([run.spans for run in self.runs])


def _steps_since(run: RunProgress, begin: float) -> int:
    """Steps since then."""
    trained = [span for span in run.spans if span.phase == TRAIN and span.share == 1 and span.end > begin]
    return max(0, run.status.step - trained[0].first) if trained else 0


def _steps_per_second(timeline: Sequence[TimelineEntry], status: Status, now: float) -> float | None:
    entries = [entry for entry in timeline if entry.attempt == status.attempt]
    last_begin = next((i for i in range(len(entries) - 1, -1, -1) if entries[i].phase == BEGIN), 0)
    first = next((entry for entry in entries[last_begin:] if entry.phase == TRAIN and entry.share == 1), None)
    if first is None or status.step <= first.step or now <= first.time:
        return None
    return (status.step - first.step) / (now - first.time)


@dataclass
class ProgressReader:
    """Looks again and again, and reads anew only what changed."""

    sweep: SweepDir
    _cache: dict[tuple[str, Path], tuple[Any, Any]] = field(default_factory=dict)

    def read(self, now: float) -> SweepProgress:
        """`now`: UTC seconds."""
        rule = self._read_if_changed("rule", self.sweep.rule, lambda: read_json_object(self.sweep.rule))
        inner = rule.get("rule")
        control = str((inner if isinstance(inner, dict) else rule).get("control") or "")
        lanes = self._read_if_changed("lanes", self.sweep.ledger, lambda: _lanes_from_ledger(self.sweep))
        runs = [
            standing
            for run in self.sweep.runs()
            if (standing := self._run_progress(run, control, lanes, now))
        ]
        return SweepProgress(self.sweep.path.name, control, runs, self._driver_alive(), now)

    def _driver_alive(self) -> bool:
        if owner(self.sweep.lock) is not None:
            return True
        return any(
            read_status(run).state is State.pending and worker_of(run) is not None
            for run in self.sweep.runs()
        )

    def _run_progress(
        self, run: RunDir, control: str, lanes: dict[str, int], now: float
    ) -> RunProgress | None:
        record = self._read_if_changed("run", run.run, lambda: read_provenance(run))
        if record is None:
            return None
        status = self._read_if_changed("status", run.status, lambda: read_status(run))
        at_work = status.state is State.running and worker_of(run) is not None
        timeline = self._read_if_changed("timeline", run.timeline, lambda: read_timeline(run))
        name = "/".join(run.path.parts[-3:])
        if not at_work:  # whatever time it is
            inputs = (record, status, timeline, lanes.get(name))
            progress = RunProgress(name, record, status, False, timeline, lanes.get(name), None, now)
            return self._cached(("standing", run.path), inputs, lambda: progress)
        difference = None if record.variant == control else self._delta(run, record, control)
        return RunProgress(name, record, status, True, timeline, lanes.get(name), difference, now)

    def _delta(self, run: RunDir, record: Provenance, control: str) -> LossDelta | None:
        control_run = self.sweep.run(record.scale, control, record.seed)
        key = [part.path for directory in (run, control_run) for part in list_parts(directory, "steps")]
        return self._cached(("delta", run.path), key, lambda: loss_delta(run, control_run))

    def _read_if_changed(self, kind: str, path: Path, read: Callable[[], T]) -> T:
        try:
            stat = path.stat()
            key = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            key = None
        return self._cached((kind, path), key, read)

    def _cached(self, entry_key: tuple[str, Path], key: Any, read: Callable[[], T]) -> T:
        entry = self._cache.get(entry_key)
        if entry is None or entry[0] != key:
            entry = self._cache[entry_key] = key, read()
        return entry[1]


def loss_delta(run: RunDir, control: RunDir) -> LossDelta | None:
    """None where the two have no step in common on disk: parts are written from checkpoint to checkpoint."""
    curves = [read_curve(directory, "steps").select("step", "loss") for directory in (run, control)]
    common = curves[0].join(curves[1], on="step", suffix="_control").sort("step").tail(DELTA_STEPS)
    mean = common.select((pl.col("loss") - pl.col("loss_control")).mean()).item()
    return None if mean is None else LossDelta(mean, common["step"][-1])


def _lanes_from_ledger(sweep: SweepDir) -> dict[str, int]:
    """Places that the driver wrote down, by run."""
    placements = [entry["content"].get("runs") for entry in ledger.read(sweep, "placement")]
    return {
        name: place["lane"]
        for runs in placements
        if isinstance(runs, dict)
        for name, place in runs.items()
        if isinstance(place, dict) and isinstance(place.get("lane"), int)
    }
