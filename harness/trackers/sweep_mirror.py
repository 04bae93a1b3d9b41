"""Mirror of one sweep in one tracker: passes over the run directories, each of which sends what is new."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.core.number_format import format_bytes
from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from harness.trackers.run_curves import Curve, CurveEnd, fingerprint, run_curves
from harness.trackers.sent_runs import SentRun, SentRuns
from harness.trackers.tracker_api import Point, RunEnd, TrackerBackend, TrackerError, TrackerRun

MAX_ERRORS = 3
"""Errors of different runs after which a pass gives up: the tracker itself does not answer."""
MIN_FREE_BYTES = 2**30
"""Free space below which nothing is sent: the disk may be that of the runs, which need it for checkpoints."""


class Mirror:
    """Runs of a sweep in a tracker. Used by one thread."""

    def __init__(
        self,
        sweep: SweepDir,
        make_backend: Callable[[], TrackerBackend],
        records: SentRuns,
        final_curves: Callable[[SentRuns], Iterable[Curve]] = lambda _: (),
    ) -> None:
        """`make_backend` is called when something is sent, and again after an error. `final_curves`: curves
        of the verdict, for the last pass."""
        self._sweep, self._make_backend, self._records = sweep, make_backend, records
        self._final_curves = final_curves
        self._backend: TrackerBackend | None = None
        self._open: dict[str, TrackerRun] = {}
        for run in records.runs.values():
            run.signature *= run.is_exact  # the last process died with these open: look again

    def send(self, is_last: bool = False) -> bool:
        """Send what is new, and return whether everything was sent. With `is_last` also the verdict, and
        every run is closed."""
        errors: list[str] = []
        try:
            self._check_space()
            for curve in self._curves(is_last):
                self._try(curve, is_last, errors)
                if len(errors) == MAX_ERRORS:
                    break
        except Exception as error:  # of a library, or of the disk
            errors.append(_describe(error))
        if errors:
            self.close()
        self._records.problem = errors[0] if errors else ""
        with contextlib.suppress(OSError):  # a full disk
            self._records.write()
        return not errors

    def close(self) -> None:
        """Drop the backend after an error; the next pass makes a new one, which asks what the tracker has."""
        self._open.clear()
        backend, self._backend = self._backend, None
        if backend:
            with contextlib.suppress(Exception):
                backend.close()

    def _curves(self, is_last: bool) -> Iterator[Curve]:
        """Yield the runs and pairs, and then what takes a while: the verdict and its pictures."""
        yield from run_curves(self._sweep)
        if is_last:
            yield from self._final_curves(self._records)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._sweep.path).free
        if free < MIN_FREE_BYTES:
            limit = format_bytes(MIN_FREE_BYTES)
            raise TrackerError(f"{format_bytes(free)} are free at {self._sweep.path}, below {limit}")

    def _try(self, curve: Curve, is_last: bool, errors: list[str]) -> None:
        """Send what is new of a curve, and add the error of one that could not be sent."""
        try:
            self._send_curve(curve, is_last)
        except Exception as error:
            self._open.pop(curve.name, None)
            errors.append(f"{curve.name}: {_describe(error)}")

    def _send_curve(self, curve: Curve, is_last: bool) -> None:
        record, signature = self._records.run(curve.name), curve.signature()
        is_open = curve.name in self._open
        if signature == record.signature and not (is_last and is_open):
            return
        points, ending = curve.points(record.step), curve.ending()
        has_ended = ending.end is not RunEnd.unfinished
        is_repeated = record.step >= 0 and not points and not has_ended  # after a resume, up to what was sent
        if not is_repeated and (record.version != curve.version or not _continues(record, points)):
            record, is_open = self._start_anew(curve, record), False
            points = curve.points(-1)
        has_news = any(point.step > record.step for point in points) or (
            has_ended and record.end != ending.end.value
        )
        if has_news or (is_last and is_open):
            self._update(curve, record, ending, is_last)
        if not is_repeated:
            record.signature = signature
        if has_news:
            self._records.write()

    def _update(self, curve: Curve, record: SentRun, ending: CurveEnd, is_last: bool) -> None:
        """Send the points that a run lacks, and close it if it has ended or this is the last pass."""
        run = self._open.get(curve.name) or self._open_run(curve, record)
        if points := curve.points(record.step + 1):
            run.log(points)
            record.step, record.fingerprint = points[-1].step, fingerprint(points[-1])
        if is_last or ending.end is not RunEnd.unfinished:
            if ending.files:
                run.attach(ending.files)
            run.close(ending.summary, ending.end)
            del self._open[curve.name]
            record.is_exact, record.end = True, ending.end.value

    def _start_anew(self, curve: Curve, record: SentRun) -> SentRun:
        """Return the record of a further run in the tracker: what it was sent holds no more."""
        self._open.pop(curve.name, None)
        is_new = record.step < 0 and not record.version
        new = SentRun(number=record.number if is_new else record.number + 1, version=curve.version)
        self._records.runs[curve.name] = new
        return new

    def _open_run(self, curve: Curve, record: SentRun) -> TrackerRun:
        """Open the run of a curve, and take from the tracker what it holds of it."""
        name = f"{curve.name} ({record.number})" if record.number > 1 else curve.name
        labels = curve.labels(self._run_id(name), name)
        position, record.is_exact = record.position, False
        self._records.write()
        self._backend = self._backend or self._make_backend()
        run = self._backend.open_run(labels, position)
        self._open[curve.name], record.step = run, run.last_step
        return run

    def _run_id(self, name: str) -> str:
        """Return an id that the run keeps, from the first entry of the ledger, which no other sweep has."""
        first = next(iter(ledger.read(self._sweep)), {"hash": self._sweep.path.name})
        return hashlib.sha256(f"{first['hash']} {name}".encode()).hexdigest()[:16]


def _continues(record: SentRun, points: Sequence[Point]) -> bool:
    """Return whether the curve still has the point that was sent last."""
    if record.step < 0:
        return True
    return bool(points) and points[0].step == record.step and fingerprint(points[0]) == record.fingerprint


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
