"""Timeline of a run: JSON lines that its thread appends, one per change of phase.

Nothing that is trained or compared depends on it, and a failed write does not stop the run. Each line has a
checksum, because a flipped bit in a time is still a time; lines of 0.1 have none. Wall clocks can jump: an
attempt reads the wall clock once and then the monotonic clock, and a reader shifts an attempt that seems to
begin before the last one ended. A restarted run keeps its lines, because the machine was busy.
Cooldown branches are part of their parent's timeline.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from harness.core.atomic_files import json_checksum, parse_json, read_record
from harness.records.paths import RunDir
from harness.records.typed_values import parse_record

BEGIN, TRAIN, END = "start", "train", "end"
"""Phase that begins an attempt, phase of the steps, and phase after which the devices are free."""
CHECKSUM_DIGITS = 16
_CHECKSUM = "checksum"
REWRITE_SECONDS = 10.0
"""Seconds after which a lasting phase is written again, so a kill leaves at most these unknown."""


@dataclass(frozen=True)
class TimelineEntry:
    """Line of the timeline."""

    time: float
    """UTC seconds."""
    phase: str
    attempt: int
    width: int
    """Number of devices of the run."""
    step: int = 0
    share: float = 1.0
    """Share of the token budget at which the trained segment ends; below 1 for a branch."""


@dataclass(frozen=True)
class PhaseSpan:
    """Interval of one phase, in UTC seconds and steps."""

    phase: str
    start: float
    end: float
    width: int
    attempt: int
    first: int
    last: int
    share: float = 1.0

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end - self.start


class Timeline:
    """Writer of one attempt, used by one thread. `process_start`: UTC seconds of the start of its process."""

    def __init__(
        self,
        run: RunDir,
        attempt: int,
        width: int,
        process_start: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path, self._attempt, self._width, self._clock = run.timeline, attempt, width, clock
        now = time.time()
        self._origin = now - clock()
        before = read_timeline(run)
        self._phase, self._written, self._broken = "", 0.0, run.timeline.exists()
        start = now if process_start is None else process_start
        earliest = before[-1].time if before else -math.inf
        self._append(start if earliest <= start <= now else now, BEGIN, 0, 1.0)

    def set_phase(self, phase: str, step: int, share: float = 1.0) -> None:
        """Record that the run enters a phase, or is still in it."""
        now = self._clock() + self._origin
        if phase != self._phase or now - self._written >= REWRITE_SECONDS:
            self._append(now, phase, step, share)

    def _append(self, now: float, phase: str, step: int, share: float) -> None:
        self._phase, self._written = phase, now
        line = {"time": round(now, 3), "phase": phase, "attempt": self._attempt, "width": self._width}
        line |= {"step": step, "share": share}
        text = json.dumps(line | {_CHECKSUM: _checksum(line)}) + "\n"
        with contextlib.suppress(OSError), self._path.open("a") as file:
            # A truncated line is ended first, so that the next one can be read.
            begins, self._broken = "\n" if self._broken else "", True
            file.write(begins + text)
            file.flush()
            self._broken = False


def read_timeline(run: RunDir) -> list[TimelineEntry]:
    """Return the readable lines in order; empty if the file is missing."""
    return [entry for entry in _parse_lines(run) if entry is not None]


def unreadable_lines(run: RunDir) -> int:
    """Return the number of lines that `read_timeline` leaves out: damaged, or cut short by a kill. A file
    that is there and cannot be read counts as one."""
    return _parse_lines(run).count(None)


def _parse_lines(run: RunDir) -> list[TimelineEntry | None]:
    try:
        text = read_record(run.timeline, errors="replace")
    except OSError:
        text = None
    if text is None:
        return [None] * os.path.lexists(run.timeline)
    return [_parse_line(line) for line in text.split("\n") if line]


def _parse_line(line: str) -> TimelineEntry | None:
    """Return the entry of a line; None if its checksum does not fit, or, without one, its keys or types."""
    content = parse_json(line)
    if not isinstance(content, dict):
        return None
    checksum = content.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(content):
        return None
    entry = parse_record(TimelineEntry, content)
    return entry if entry is not None and entry.width > 0 else None


def _checksum(content: dict[str, Any]) -> str:
    return json_checksum(content)[:CHECKSUM_DIGITS]


def phase_spans(entries: Sequence[TimelineEntry], until: float | None = None) -> list[PhaseSpan]:
    """Return the intervals of the phases in order, without overlaps or negative lengths.

    The last phase of a killed attempt ends with its last line. For a run that still trains, its last phase
    extends to `until`, in UTC seconds.
    """
    spans: list[PhaseSpan] = []
    end = -math.inf
    for attempt in _split_attempts(entries):
        shift = max(0.0, end - attempt[0].time)
        for entry, following in pairwise(attempt):
            start = max(entry.time + shift, end)
            end = max(following.time + shift, start)
            step = following.step if following.share == entry.share else entry.step
            _add_span(spans, entry, start, end, step)
    last = entries[-1] if entries else None
    if until is not None and last is not None and last.phase != END:
        start = max(end, last.time)
        _add_span(spans, last, start, max(until, start), last.step)
    return spans


def _split_attempts(entries: Sequence[TimelineEntry]) -> list[list[TimelineEntry]]:
    """Split the lines into attempts, from one start to the next."""
    groups: list[list[TimelineEntry]] = []
    for entry in entries:
        if not groups or entry.phase == BEGIN or entry.attempt != groups[-1][-1].attempt:
            groups.append([])
        groups[-1].append(entry)
    return groups


def _add_span(spans: list[PhaseSpan], entry: TimelineEntry, start: float, end: float, step: int) -> None:
    """Append an interval, or extend the last one if the phase was only written again."""
    if entry.phase == END or end <= start:
        return
    last = spans[-1] if spans else None
    same_phase = last and (last.phase, last.attempt, last.share) == (entry.phase, entry.attempt, entry.share)
    if last and same_phase and last.end == start and last.width == entry.width:
        spans[-1] = replace(last, end=end, last=step)
    else:
        span = PhaseSpan(entry.phase, start, end, entry.width, entry.attempt, entry.step, step, entry.share)
        spans.append(span)
