"""Time that a sweep still takes, as a range, once its runs have shown how long they take.

Each run that has not ended costs what was predicted for it, times the factor by which the runs so far differ
from their predictions; runs of its own scale count first. The runs that are left are then scheduled as the
workers were seen to take them: some blocks at once, and in each some runs at once.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.number_format import format_clock
from harness.records.paths import SweepDir
from harness.records.run.pace import PredictedParts, RunCourse
from harness.records.sweep import ledger

MIN_SECONDS = 5.0
"""Seconds of steps, over all runs, from which on they tell anything."""
MAX_RATIO, MAX_GAP = 2.6, 20.0
"""A range is shown if its ends differ by no more than this factor, or by no more than these seconds."""
KNOWN_DOUBT, UNKNOWN_DOUBT, RUNS_PER_E = 0.2, 0.4, 0.35
"""Doubts (in ln) of a scale that has shown its pace, and of one that has not; the doubt falls by a factor e
for each RUNS_PER_E runs that were trained at the scale."""
STARTUP_DOUBT, OTHER_STARTUP_DOUBT, NEW_STARTUP_DOUBT = 0.35, 0.4, 0.7
"""Doubts (in ln) of a start such as others at its scale had, such as others at other scales had, and of one
such as none had."""
OWN_RUNS = 0.15
"""Runs of a scale whose own pace counts as much as that of all scales."""
LEAST_SHARE = 0.1
"""Share of a start that is left at least while it lasts."""
TICK = 3.0
"""Seconds between the end of a run and the start of the next one, or the end of the sweep, at most."""


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the last run ends, with a range that is to hold nine times of ten."""

    low: float
    middle: float
    high: float

    @property
    def text(self) -> str:
        """The range, such as `1:40 to 2:30 left`, rounded outwards to what it can tell."""
        grain = next((grain for limit, grain in _GRAINS if self.high < limit), 600)
        low, high = math.floor(self.low / grain) * grain, math.ceil(self.high / grain) * grain
        return (
            f"{format_clock(low)} to {format_clock(high)} left" if low else f"up to {format_clock(high)} left"
        )


_GRAINS = ((180, 5), (600, 10), (7200, 60))
"""Seconds below which a time left is rounded to so many seconds."""


def predicted_parts(sweep: SweepDir) -> dict[str, PredictedParts]:
    """Return what the ledger has of the predicted times of each run, by its name."""
    parts = {
        name: PredictedParts.from_record(place.get("predicted"))
        for entry in ledger.read_valid(sweep, "placement")
        for name, place in entry["content"]["runs"].items()
    }
    return {name: part for name, part in parts.items() if part is not None}


def with_default_parts(
    predicted: Mapping[str, PredictedParts], work: Mapping[str, tuple[float, int]]
) -> dict[str, PredictedParts]:
    """Return the predicted parts of every run in `work`, which holds the FLOPs and steps of each. If one has
    no prediction, all are taken to start alike and to cost their FLOPs: only ratios count."""
    if work.keys() <= predicted.keys():
        return {name: predicted[name] for name in work}
    return {name: PredictedParts(1.0, flops, 0.0, steps) for name, (flops, steps) in work.items()}


def time_left(courses: Sequence[RunCourse]) -> TimeLeft | None:
    """Return the time left of a sweep from all of its runs, in the order in which they start; None while
    the runs tell too little."""
    if sum(course.train for course in courses if course.has_steps) < MIN_SECONDS:
        return None
    paces, lanes = _Paces(courses), _Lanes.used_by(courses)
    active_blocks = {course.block for course in courses if course.is_active}
    queue = sorted(
        (course for course in courses if not course.is_over),
        key=lambda course: (course.block not in active_blocks, not course.is_active),
    )
    low, middle, high = (
        lanes.makespan([(course.block, paces.seconds_left(course, doubt)) for course in queue])
        for doubt in (-1.0, 0.0, 1.0)
    )
    left = TimeLeft(low, middle, high + TICK * bool(queue))
    return left if left.high <= max(MAX_RATIO * left.low, left.low + MAX_GAP) else None


class _Paces:
    """Factors between measured and predicted seconds, by scale."""

    def __init__(self, courses: Sequence[RunCourse]) -> None:
        trained_runs = [course for course in courses if course.has_steps]
        overall = _Pace.of_runs(trained_runs, None)
        self._by_scale = {
            scale: _Pace.of_runs([course for course in trained_runs if course.scale == scale], overall)
            for scale in {course.scale for course in trained_runs}
        }
        self._overall = dataclasses.replace(overall, doubt=UNKNOWN_DOUBT, pause_doubt=UNKNOWN_DOUBT)
        self._starts = _Starts(courses, self._overall.train)

    def seconds_left(self, course: RunCourse, sign: float) -> float:
        """Return the seconds that a run still takes; `sign` -1 or 1 for the low or high end of its range."""
        pace = self._by_scale.get(course.scale, self._overall)
        train = course.predicted.train * pace.train * math.exp(sign * pace.doubt)
        pauses = course.predicted.pauses * pace.pauses * math.exp(sign * pace.pause_doubt)
        left = (1 - course.share) * (train + pauses)
        if course.has_steps and course.is_active:
            return left
        return left + self._starts.seconds_left(course, sign)


class _Starts:
    """Starts of runs. The first run of a variant at a scale compiles its programs, and the others load them,
    whichever was predicted to be first: workers may take them in another order."""

    def __init__(self, courses: Sequence[RunCourse], pace: float) -> None:
        """`pace`: measured over predicted seconds of steps, which stands for starts as long as none was
        seen."""
        self._pace = pace
        self._predicted: dict[tuple[str, str], list[float]] = {}
        begun_runs = sorted((c for c in courses if c.interval), key=lambda c: c.interval or (0.0, 0.0))
        self._first_runs = {_program(course): course for course in reversed(begun_runs)}
        for course in courses:
            self._predicted.setdefault(_program(course), []).append(course.predicted.startup)
        self._factors: dict[tuple[str, bool], float] = {}
        for course in begun_runs:
            if course.has_steps and (seconds := self._predicted_seconds(course)):
                kind = course.scale, self._compiles(course)
                # The first ones may have waited for tokens or for other programs: the least tells most.
                self._factors[kind] = min(self._factors.get(kind, math.inf), course.startup / seconds)

    def _compiles(self, course: RunCourse) -> bool:
        return self._first_runs.get(_program(course), course) is course

    def _predicted_seconds(self, course: RunCourse) -> float:
        return (max if self._compiles(course) else min)(self._predicted[_program(course)])

    def seconds_left(self, course: RunCourse, sign: float) -> float:
        """Return the seconds until a run has its first step; `sign` as for `_Paces.seconds_left`."""
        factor, doubt = self._factor(course)
        predicted = self._predicted_seconds(course)
        seconds = predicted * factor * math.exp(sign * doubt)
        seconds_so_far = course.startup if course.is_active else 0.0
        return max(seconds - seconds_so_far, LEAST_SHARE * seconds)

    def _factor(self, course: RunCourse) -> tuple[float, float]:
        """Return measured over predicted seconds of such starts, and its doubt (in ln)."""
        compiles = self._compiles(course)
        if (factor := self._factors.get((course.scale, compiles))) is not None:
            return factor, STARTUP_DOUBT
        factors = [factor for (_, kind), factor in self._factors.items() if kind == compiles]
        return (min(factors), OTHER_STARTUP_DOUBT) if factors else (self._pace, NEW_STARTUP_DOUBT)


def _program(course: RunCourse) -> tuple[str, str]:
    return course.scale, course.variant


@dataclass(frozen=True)
class _Pace:
    """Measured over predicted seconds of steps and of pauses, with their doubts (in ln)."""

    train: float
    pauses: float
    doubt: float
    pause_doubt: float

    @staticmethod
    def of_runs(courses: Sequence[RunCourse], overall: _Pace | None) -> _Pace:
        """Return the pace of these runs. Runs that have ended tell of pauses, which come at the end of a run
        too; before that pauses are taken to keep the pace of steps, or what has passed already."""
        runs = sum(course.share for course in courses)
        weight = runs / (runs + OWN_RUNS) if overall else 1.0
        predicted = sum(course.predicted.train * course.share for course in courses)
        train = sum(course.train for course in courses) / predicted if predicted else 1.0
        train = train**weight * (overall.train if overall else 1.0) ** (1 - weight)
        doubt = KNOWN_DOUBT + (UNKNOWN_DOUBT - KNOWN_DOUBT) * math.exp(-runs / RUNS_PER_E)
        ended_runs = [course for course in courses if course.is_over and course.predicted.pauses]
        if ended_runs:
            pauses = sum(course.pauses for course in ended_runs) / sum(c.predicted.pauses for c in ended_runs)
            return _Pace(train, pauses, doubt, doubt)
        return _Pace(train, overall.pauses if overall else train, doubt, UNKNOWN_DOUBT)


@dataclass(frozen=True)
class _Lanes:
    """Blocks that were at work at once, and runs of one block."""

    blocks: int
    runs: int

    @staticmethod
    def used_by(courses: Sequence[RunCourse]) -> _Lanes:
        by_block: dict[str, list[tuple[float, float]]] = {}
        for course in courses:
            if course.interval:
                by_block.setdefault(course.block, []).append(course.interval)
        block_intervals = [
            (min(start for start, _ in runs), max(end for _, end in runs)) for runs in by_block.values()
        ]
        return _Lanes(_most_at_once(block_intervals), max(map(_most_at_once, by_block.values()), default=1))

    def makespan(self, seconds: Iterable[tuple[str, float]]) -> float:
        """Return the seconds until the last block ends, if each starts when a worker is free for it."""
        by_block: dict[str, list[float]] = {}
        for block, run_seconds in seconds:
            by_block.setdefault(block, []).append(run_seconds)
        return _list_schedule([_list_schedule(runs, self.runs) for runs in by_block.values()], self.blocks)


def _list_schedule(tasks: Sequence[float], lanes: int) -> float:
    """Return the end of the last task, if each starts in turn on the lane that is free first."""
    ends = [0.0] * lanes
    for seconds in tasks:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _most_at_once(intervals: Sequence[tuple[float, float]]) -> int:
    edges = sorted([(start, 1) for start, _ in intervals] + [(end, -1) for _, end in intervals])
    peak = current = 0
    for _, change in edges:
        current += change
        peak = max(peak, current)
    return max(1, peak)
