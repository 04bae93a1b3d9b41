"""Progress of a sweep, read from its directories without touching the processes that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from harness.compare.inputs.json_values import read_json_object
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import list_parts, read_curve
from harness.records.run.pace import PredictedParts, run_course
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.run_lock import owner, worker_of
from harness.records.run.status import State, Status, read_intact_status
from harness.records.run.timeline import (
    BEGIN,
    TRAIN,
    PhaseSpan,
    TimelineEntry,
    phase_spans,
    read_timeline,
    unreadable_lines,
)
from harness.records.run.utilisation import Utilisation, active_sessions, machine_cores, utilisation
from harness.records.sweep import ledger
from harness.records.sweep.time_left import (
    MIN_SECONDS,
    TimeLeft,
    predicted_parts,
    time_left,
    with_default_parts,
)

FAILED = (State.failed, State.oom, State.refused, State.lost, State.diverged)
DELTA_STEPS = 16
"""Number of steps over whose mean two losses are compared; single steps vary with their batch."""
T = TypeVar("T")


@dataclass(frozen=True)
class LossDelta:
    """Mean loss of a run minus that of its block's control, over the last steps that both have on disk."""

    mean: float
    step: int
    """Last of these steps."""


@dataclass(frozen=True)
class RunProgress:
    """Progress of one run at one moment."""

    name: str
    """`<scale>/<variant>/seed<k>`."""
    record: Provenance
    status: Status
    is_running: bool
    timeline: Sequence[TimelineEntry]
    lane: int | None
    """Lane in its block, from the ledger."""
    delta: LossDelta | None
    """Difference from the control; None for the control and where no step is shared."""
    now: float
    """UTC seconds."""

    @property
    def phase(self) -> str:
        """Current phase, with the branch that is being trained."""
        last = self.timeline[-1] if self.timeline else None
        if last is None or last.attempt != self.status.attempt:
            return self.status.phase or BEGIN
        return last.phase if last.share == 1 else f"branch {last.share:.0%}: {last.phase}"

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.record.facts.steps

    @property
    def done_share(self) -> float:
        """Share of the training that is done; 1 for a run that will not continue."""
        return 1.0 if self.status.state.is_final else min(1.0, self.status.step / max(1, self.steps))

    @property
    def flops(self) -> float:
        """Model FLOPs of the whole run."""
        return self.record.tokens * self.record.facts.flops_per_token

    @cached_property
    def spans(self) -> list[PhaseSpan]:
        """Phases over time, the current one up to `now`."""
        return phase_spans(self.timeline, self.now if self.is_running else None)

    @property
    def steps_per_second(self) -> float | None:
        """Steps per second since the attempt began to train, evaluating and saving included; None in its
        first seconds, whose steps say little."""
        entries = [entry for entry in self.timeline if entry.attempt == self.status.attempt]
        last_begin = next((i for i in range(len(entries) - 1, -1, -1) if entries[i].phase == BEGIN), 0)
        training = (entry for entry in entries[last_begin:] if entry.phase == TRAIN and entry.share == 1)
        first = next(training, None)
        if first is None or self.status.step <= first.step or self.now - first.time < MIN_SECONDS:
            return None
        return (self.status.step - first.step) / (self.now - first.time)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of the attempt; None at its beginning."""
        pace = self.steps_per_second
        return pace * self.record.facts.tokens_per_step if pace else None

    @property
    def seconds_left(self) -> float | None:
        """Predicted seconds to the end of the run; None at the beginning of an attempt."""
        pace = self.steps_per_second
        return max(0, self.steps - self.status.step) / pace if pace else None


@dataclass(frozen=True)
class SweepProgress:
    """Progress of all runs of a sweep at one moment."""

    name: str
    control: str
    runs: Sequence[RunProgress]
    driver_alive: bool
    """True if a driver is alive, or a worker that has not begun some of its runs."""
    now: float
    cores: int | None = None
    """Cores of the machine that simulates the devices; None if they are real, or elsewhere."""

    unreadable: Sequence[str] = ()
    """Records of runs that cannot be read, as paths in the sweep. A run without its run.json is not shown."""
    unreadable_lines: int = 0
    """Number of lines of timelines that cannot be read."""
    predicted: Mapping[str, PredictedParts] = field(default_factory=dict)
    """Parts of the predicted time of each run, from the ledger."""

    def _select(self, condition: Callable[[RunProgress], bool]) -> list[RunProgress]:
        return [run for run in self.runs if condition(run)]

    @cached_property
    def running(self) -> list[RunProgress]:
        """Running runs by block, the largest block first, in each the control first."""
        return sorted(self._select(lambda run: run.is_running), key=self._display_order)

    def _display_order(self, run: RunProgress) -> tuple:
        record = run.record
        control = record.variant == self.control
        return -record.tokens * record.parameters, record.scale, record.seed, not control, record.variant

    @cached_property
    def failures(self) -> list[RunProgress]:
        """Runs that failed and are not running again."""
        return self._select(lambda run: run.status.state in FAILED and not run.is_running)

    @cached_property
    def ended(self) -> list[RunProgress]:
        """Runs that finished, or that the decision rule stopped."""
        return self._select(lambda run: run.status.state in (State.finished, State.stopped))

    @cached_property
    def waiting_at_look(self) -> list[RunProgress]:
        """Runs that wait at an interim look until their scale is decided."""
        return self._select(lambda run: run.status.state is State.waiting and not run.is_running)

    @cached_property
    def queue(self) -> list[RunProgress]:
        """Runs that have not begun, or that stopped before their end without a failure."""
        names = {run.name for run in (*self.running, *self.failures, *self.ended, *self.waiting_at_look)}
        return self._select(lambda run: run.name not in names)

    @property
    def is_over(self) -> bool:
        """True if no process is left that could change anything."""
        return not self.driver_alive and not self.running

    @property
    def done_share(self) -> float:
        """Share of the sweep's model FLOPs that are done."""
        total = sum(run.flops for run in self.runs)
        return sum(run.flops * run.done_share for run in self.runs) / total if total else 1.0

    @cached_property
    def left(self) -> TimeLeft | None:
        """Time to the end of the last run; None while the runs tell too little, or none is running."""
        sessions = active_sessions([span for run in self.runs for span in run.spans])
        if not sessions or not self.running:
            return None
        parts = with_default_parts(self.predicted, {run.name: (run.flops, run.steps) for run in self.runs})
        courses = [
            run_course(
                run.name,
                parts[run.name],
                run.spans,
                run.status,
                is_active=run.is_running,
                session=sessions[-1][0],
            )
            for run in self.runs
        ]
        return time_left(courses)

    @property
    def utilisation(self) -> Utilisation | None:
        """Utilisation of the devices so far; None if no run has a timeline."""
        return utilisation([run.spans for run in self.runs], cores=self.cores)


@dataclass
class ProgressReader:
    """Reader that can be called repeatedly and only reads files that changed."""

    sweep: SweepDir
    _cache: dict[tuple[str, Path], tuple[Any, Any]] = field(default_factory=dict)

    def read(self, now: float) -> SweepProgress:
        """Read the progress of all runs. `now` is in UTC seconds."""
        rule = self._read_if_changed("rule", self.sweep.rule, lambda: read_json_object(self.sweep.rule))
        inner = rule.get("rule")
        control = str((inner if isinstance(inner, dict) else rule).get("control") or "")
        lanes = self._read_if_changed("lanes", self.sweep.ledger, lambda: _lanes_from_ledger(self.sweep))
        directories = [*self.sweep.runs()]
        candidates = [self._run_progress(run, control, lanes, now) for run in directories]
        runs = [progress for progress in candidates if progress]
        pending = (run for run in directories if (self._status(run) or Status()).state is State.pending)
        has_driver = owner(self.sweep.driver_lock) is not None
        is_alive = has_driver or any(worker_of(run) is not None for run in pending)
        cores = self._read_if_changed("cores", self.sweep.ledger, lambda: machine_cores(self.sweep))
        unreadable = [name for run in directories for name in self._unreadable_records(run)]
        lines = sum(
            self._read_if_changed("lines", run.timeline, lambda run=run: unreadable_lines(run))
            for run in directories
        )
        predicted = self._read_if_changed("predicted", self.sweep.ledger, lambda: predicted_parts(self.sweep))
        name = self.sweep.path.name
        return SweepProgress(name, control, runs, is_alive, now, cores, unreadable, lines, predicted)

    def _run_progress(
        self, run: RunDir, control: str, lanes: dict[str, int], now: float
    ) -> RunProgress | None:
        record = self._record(run)
        if record is None:
            return None
        status = self._status(run) or Status()
        is_running = status.state is State.running and worker_of(run) is not None
        timeline = self._read_if_changed("timeline", run.timeline, lambda: read_timeline(run))
        name = "/".join(run.path.parts[-3:])
        if not is_running:  # then the result does not depend on the time
            inputs = (record, status, timeline, lanes.get(name))
            progress = RunProgress(name, record, status, False, timeline, lanes.get(name), None, now)
            return self._cached(("progress", run.path), inputs, lambda: progress)
        difference = None if record.variant == control else self._delta(run, record, control)
        return RunProgress(name, record, status, True, timeline, lanes.get(name), difference, now)

    def _record(self, run: RunDir) -> Provenance | None:
        return self._read_if_changed("run", run.run, lambda: read_provenance(run))

    def _status(self, run: RunDir) -> Status | None:
        return self._read_if_changed("status", run.status, lambda: read_intact_status(run))

    def _unreadable_records(self, run: RunDir) -> list[str]:
        records = {run.run: self._record(run), run.status: self._status(run)}
        return [
            path.relative_to(self.sweep.path).as_posix()
            for path, content in records.items()
            if content is None and os.path.lexists(path)
        ]

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
    """Compare the last common steps on disk, which is written at checkpoints. Returns None without any."""
    curves = [read_curve(directory, "steps").select("step", "loss") for directory in (run, control)]
    common = curves[0].join(curves[1], on="step", suffix="_control").sort("step").tail(DELTA_STEPS)
    mean = common.select((pl.col("loss") - pl.col("loss_control")).mean()).item()
    return None if mean is None else LossDelta(mean, common["step"][-1])


def _lanes_from_ledger(sweep: SweepDir) -> dict[str, int]:
    """Return the lane of each run that the driver recorded."""
    placements = [entry["content"].get("runs") for entry in ledger.read(sweep, "placement")]
    return {
        name: place["lane"]
        for runs in placements
        if isinstance(runs, dict)
        for name, place in runs.items()
        if isinstance(place, dict) and isinstance(place.get("lane"), int)
    }
