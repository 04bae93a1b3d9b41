"""How a sweep stands now, from its directories alone: who drives it or trains in it is only looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from harness.compare.inputs.decision_rule import content_of
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import parts, read_curve
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.run_lock import holder, worker_of
from harness.records.run.status import State, Status, read_status
from harness.records.run.timeline import BEGIN, TRAIN, Entry, Span, read_timeline, spans
from harness.records.run.utilisation import Utilisation, sessions, utilisation
from harness.records.sweep import ledger

FAILED = (State.failed, State.oom, State.refused, State.lost, State.diverged)
TAIL = 16
"""Steps over whose mean two losses are compared: single ones jump with what their batch holds."""
T = TypeVar("T")


@dataclass(frozen=True)
class Delta:
    """Mean loss of a run minus that of its block's control, over the last steps that both have on disk."""

    mean: float
    step: int


@dataclass(frozen=True)
class Standing:
    """One run."""

    name: str
    """`<scale>/<variant>/seed<k>`."""
    record: Provenance
    status: Status
    at_work: bool
    timeline: Sequence[Entry]
    lane: int | None
    """Its place in its block."""
    delta: Delta | None
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
    def done(self) -> float:
        """Share of its training that is over, or will not come."""
        return 1.0 if self.status.state.settled else min(1.0, self.status.step / max(1, self.steps))

    @property
    def flops(self) -> float:
        return self.record.tokens * self.record.facts.flops_per_token

    @cached_property
    def spans(self) -> list[Span]:
        return spans(self.timeline, self.now if self.at_work else None)

    @property
    def pace(self) -> float | None:
        """Steps a second since its attempt began to train, pauses to evaluate and save included."""
        return _pace(self.timeline, self.status, self.now)

    @property
    def tokens_per_second(self) -> float | None:
        """At its pace; of its last step alone before there is one."""
        if self.pace is None:
            return self.status.tokens_per_second
        return self.pace * self.record.facts.tokens_per_step

    @property
    def seconds_left(self) -> float | None:
        return max(0, self.steps - self.status.step) / self.pace if self.pace else None


@dataclass(frozen=True)
class Fleet:
    """All runs of a sweep at one moment."""

    name: str
    control: str
    runs: Sequence[Standing]
    driven: bool
    """A driver is at work, or a worker that has yet to begin with some of its runs."""
    now: float

    def having(self, wanted: Callable[[Standing], bool]) -> list[Standing]:
        return [run for run in self.runs if wanted(run)]

    @cached_property
    def at_work(self) -> list[Standing]:
        """Block by block, the largest first, in each the control first."""
        return sorted(self.having(lambda run: run.at_work), key=self._place)

    def _place(self, run: Standing) -> tuple:
        record = run.record
        control = record.variant == self.control
        return -record.tokens * record.parameters, record.scale, record.seed, not control, record.variant

    @cached_property
    def failures(self) -> list[Standing]:
        return self.having(lambda run: run.status.state in FAILED and not run.at_work)

    @cached_property
    def ended(self) -> list[Standing]:
        return self.having(lambda run: run.status.state in (State.finished, State.stopped))

    @cached_property
    def at_look(self) -> list[Standing]:
        return self.having(lambda run: run.status.state is State.waiting and not run.at_work)

    @cached_property
    def queue(self) -> list[Standing]:
        """Not begun, or left before its end without having failed."""
        taken = (*self.at_work, *self.failures, *self.ended, *self.at_look)
        names = {run.name for run in taken}
        return self.having(lambda run: run.name not in names)

    @property
    def over(self) -> bool:
        """Nothing will change by itself."""
        return not self.driven and not self.at_work

    @property
    def share(self) -> float:
        """Of the sweep's model FLOPs."""
        total = sum(run.flops for run in self.runs)
        return sum(run.flops * run.done for run in self.runs) / total if total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace since the sweep was last taken up; None before there is one."""
        driven = sessions([span for run in self.runs for span in run.spans])
        if not driven or not self.at_work:
            return None
        begin = driven[-1][0]
        gained = sum(run.flops / max(1, run.steps) * _gained(run, begin) for run in self.runs)
        left = sum(run.flops * (1 - run.done) for run in self.runs)
        return left * (self.now - begin) / gained if gained > 0 else None

    @property
    def utilisation(self) -> Utilisation | None:
        return utilisation([run.spans for run in self.runs])


def _gained(run: Standing, begin: float) -> int:
    """Steps since then."""
    trained = [span for span in run.spans if span.phase == TRAIN and span.share == 1 and span.end > begin]
    return max(0, run.status.step - trained[0].first) if trained else 0


def _pace(timeline: Sequence[Entry], status: Status, now: float) -> float | None:
    mine = [entry for entry in timeline if entry.attempt == status.attempt]
    begun = next((i for i in range(len(mine) - 1, -1, -1) if mine[i].phase == BEGIN), 0)
    first = next((entry for entry in mine[begun:] if entry.phase == TRAIN and entry.share == 1), None)
    if first is None or status.step <= first.step or now <= first.time:
        return None
    return (status.step - first.step) / (now - first.time)


@dataclass
class Watcher:
    """Looks again and again, and reads anew only what changed."""

    sweep: SweepDir
    _kept: dict[tuple[str, Path], tuple[Any, Any]] = field(default_factory=dict)

    def look(self, now: float) -> Fleet:
        """`now`: UTC seconds."""
        rule = self._fresh("rule", self.sweep.rule, lambda: content_of(self.sweep.rule))
        inner = rule.get("rule")
        control = str((inner if isinstance(inner, dict) else rule).get("control") or "")
        lanes = self._fresh("lanes", self.sweep.ledger, lambda: _lanes(self.sweep))
        runs = [
            standing for run in self.sweep.runs() if (standing := self._standing(run, control, lanes, now))
        ]
        return Fleet(self.sweep.path.name, control, runs, self._driven(), now)

    def _driven(self) -> bool:
        if holder(self.sweep.lock) is not None:
            return True
        return any(
            read_status(run).state is State.pending and worker_of(run) is not None
            for run in self.sweep.runs()
        )

    def _standing(self, run: RunDir, control: str, lanes: dict[str, int], now: float) -> Standing | None:
        record = self._fresh("run", run.run, lambda: read_provenance(run))
        if record is None:
            return None
        status = self._fresh("status", run.status, lambda: read_status(run))
        at_work = status.state is State.running and worker_of(run) is not None
        timeline = self._fresh("timeline", run.timeline, lambda: read_timeline(run))
        name = "/".join(run.path.parts[-3:])
        if not at_work:  # whatever time it is
            known = (record, status, timeline, lanes.get(name))
            still = Standing(name, record, status, False, timeline, lanes.get(name), None, now)
            return self._keep(("standing", run.path), known, lambda: still)
        difference = None if record.variant == control else self._delta(run, record, control)
        return Standing(name, record, status, True, timeline, lanes.get(name), difference, now)

    def _delta(self, run: RunDir, record: Provenance, control: str) -> Delta | None:
        beside = self.sweep.run(record.scale, control, record.seed)
        key = [part.path for each in (run, beside) for part in parts(each, "steps")]
        return self._keep(("delta", run.path), key, lambda: delta(run, beside))

    def _fresh(self, kind: str, path: Path, read: Callable[[], T]) -> T:
        try:
            found = path.stat()
            key = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            key = None
        return self._keep((kind, path), key, read)

    def _keep(self, what: tuple[str, Path], key: Any, read: Callable[[], T]) -> T:
        kept = self._kept.get(what)
        if kept is None or kept[0] != key:
            kept = self._kept[what] = key, read()
        return kept[1]


def delta(run: RunDir, control: RunDir) -> Delta | None:
    """None where the two have no step in common on disk: parts are written from checkpoint to checkpoint."""
    pair = [read_curve(each, "steps").select("step", "loss") for each in (run, control)]
    both = pair[0].join(pair[1], on="step", suffix="_control").sort("step").tail(TAIL)
    mean = both.select((pl.col("loss") - pl.col("loss_control")).mean()).item()
    return None if mean is None else Delta(mean, both["step"][-1])


def _lanes(sweep: SweepDir) -> dict[str, int]:
    """Places that the driver wrote down, by run."""
    placed = [entry["content"].get("runs") for entry in ledger.read(sweep, "placement")]
    return {
        name: place["lane"]
        for runs in placed
        if isinstance(runs, dict)
        for name, place in runs.items()
        if isinstance(place, dict) and isinstance(place.get("lane"), int)
    }
