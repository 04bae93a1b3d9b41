"""Loss curves and paired differences of a sweep, read again only where they grew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.report.frames import sweep_frames
from harness.report.frames.sweep_progress import RunProgress, SweepProgress
from harness.web.page_state import PageState, json_numbers

SLICE_SECONDS = 1.0
"""Seconds of reading after which the page shows what was read so far."""
TRAIL_POINTS = 240
"""Number of losses of a running run that are shown beyond its curve on disk, at most."""
AXES = {"t": "tokens", "s": "step", "f": "flops", "d": "device_seconds"}
"""Columns that a curve can be drawn over, by their names in the messages."""


@dataclass
class CurveOnDisk:
    """Rows of one curve that were read, and the files that they came from."""

    files: tuple[str, ...] = ()
    rows: pl.DataFrame | None = None
    last_step: int = 0

    def grow(self, run: RunDir, kind: str) -> bool:
        """Read the parts that are new, or all if earlier ones were replaced; return whether any changed."""
        files = tuple(part.path.name for part in metrics.list_parts(run, kind))
        if files == self.files and self.rows is not None:
            return False
        if self.rows is None or files[: len(self.files)] != self.files:
            self.rows, self.last_step = None, metrics.start_step(run)
        parts = metrics.parts_from(run, kind, self.last_step + 1)
        new_rows = metrics.read_parts(parts, kind).filter(pl.col("step") > self.last_step)
        self.rows = new_rows if self.rows is None else pl.concat([self.rows, new_rows], how="diagonal")
        self.last_step = parts[-1].end if parts else self.last_step
        self.files = files
        return True

    def forget_rows(self) -> None:
        """Drop the rows of a run that grows no more."""
        self.rows = None


@dataclass
class RunCurves:
    """Curves of one run in the form in which they are drawn."""

    stamp: tuple[int, ...] = ()
    steps: CurveOnDisk = field(default_factory=CurveOnDisk)
    evals: CurveOnDisk = field(default_factory=CurveOnDisk)
    branches: dict[Path, CurveOnDisk] = field(default_factory=dict)
    losses: pl.DataFrame | None = None
    """Columns as in `sweep_frames.Frames.losses`."""
    means: pl.DataFrame | None = None
    """Columns as in `sweep_frames.Frames.evals`."""
    trail: list[tuple[int, int, float]] = field(default_factory=list)
    """Step, tokens and loss of a running run, from its status, where its curve is not on disk yet."""


class CurveFeed:
    """Reader of all curves of a sweep. `version` counts the changes of held-out losses."""

    def __init__(self, sweep: SweepDir, state: PageState) -> None:
        self._sweep, self._state = sweep, state
        self._runs: dict[str, RunCurves] = {}
        self._points = 0
        self._stale_scales: set[str] = set()
        self.version = 0

    def update(self, progress: SweepProgress, domains: Sequence[str]) -> bool:
        """Read what grew, for `SLICE_SECONDS` at most, and put it on the page; return whether that is all."""
        deadline = time.monotonic() + SLICE_SECONDS
        self._choose_points(len(progress.runs))
        changed, complete = False, True
        in_turn = sorted(progress.runs, key=lambda run: run.record.seed)  # of each panel something early
        for run in in_turn:
            if time.monotonic() > deadline:
                complete = False
                break
            losses_changed, means_changed = self._update_run(run, domains)
            changed |= losses_changed
            self._stale_scales |= {run.record.scale} if means_changed else set()
        self._drop_lost_runs(progress)
        if changed:
            self._put_ceilings(progress)
        if complete and self._stale_scales:  # a mean over the seeds that were read so far would mislead
            self.version += 1
            for scale in sorted(self._stale_scales):
                self._put_pairs(scale, progress.control)
            self._stale_scales.clear()
        return complete

    def read_again(self) -> None:
        """Read all held-out losses again at the next update, as after a change of the domains."""
        for curves in self._runs.values():
            curves.stamp, curves.means = (), None
            curves.evals, curves.branches = CurveOnDisk(), {}

    def _choose_points(self, num_runs: int) -> None:
        points = sweep_frames.points_per_run(num_runs)
        if points != self._points:
            self._points = points
            for curves in self._runs.values():
                curves.stamp, curves.steps = (), CurveOnDisk()

    def _update_run(self, run: RunProgress, domains: Sequence[str]) -> tuple[bool, bool]:
        """Return whether the curve of a run, and whether its held-out losses changed."""
        directory = RunDir(self._sweep.path / run.name)
        curves = self._runs.setdefault(run.name, RunCurves())
        self._update_trail(run, curves)
        stamp = (*_change_times(directory), run.is_running)
        if stamp == curves.stamp:
            return False, False
        losses_changed = curves.steps.grow(directory, "steps")
        if losses_changed and curves.steps.rows is not None:
            curves.losses = sweep_frames.thin_steps(curves.steps.rows, run.record, self._points)
            self._put_curve(run, curves.losses)
            self._update_trail(run, curves)
        means_changed = self._update_means(run, directory, curves, domains)
        if not run.is_running:
            curves.steps.forget_rows()
        curves.stamp = stamp
        return losses_changed, means_changed

    def _update_means(
        self, run: RunProgress, directory: RunDir, curves: RunCurves, domains: Sequence[str]
    ) -> bool:
        branches = {branch.path: branch for branch in directory.branches()}
        curves.branches = {path: curves.branches.get(path, CurveOnDisk()) for path in branches}
        changes = [curves.evals.grow(directory, "evals")]
        changes += [curve.grow(branches[path], "evals") for path, curve in curves.branches.items()]
        if not any(changes) or curves.evals.rows is None:
            return False
        ends = [curve.rows for curve in curves.branches.values() if curve.rows is not None]
        curves.means = sweep_frames.mean_evals(curves.evals.rows, ends, run.record, domains)
        return True

    def _update_trail(self, run: RunProgress, curves: RunCurves) -> None:
        """Add the loss in the status of a running run, and leave out what its curve on disk has by now."""
        step, loss = run.status.step, run.status.loss
        trail = [point for point in curves.trail if point[0] > curves.steps.last_step]
        if not run.is_running or (trail and step < trail[-1][0]):
            trail = []
        is_new = step > curves.steps.last_step and (not trail or step > trail[-1][0])
        if run.is_running and loss is not None and is_new:
            trail.append((step, step * run.record.facts.tokens_per_step, loss))
        curves.trail = trail if len(trail) <= TRAIL_POINTS else trail[::2]
        columns = [json_numbers(column) for column in zip(*curves.trail, strict=True)]
        self._state.put(f"trail/{run.name}", dict(zip("sty", columns, strict=True)) if columns else None)

    def _put_curve(self, run: RunProgress, losses: pl.DataFrame) -> None:
        if losses.is_empty():
            self._state.put(f"curve/{run.name}", None)
            return
        record = run.record
        content = {"scale": record.scale, "variant": record.variant, "seed": record.seed}
        columns = _columns(losses, AXES | {"y": "loss", "m": "smooth"})
        self._state.put(f"curve/{run.name}", content | columns)

    def _drop_lost_runs(self, progress: SweepProgress) -> None:
        for name in self._runs.keys() - {run.name for run in progress.runs}:
            del self._runs[name]
            self._state.put(f"curve/{name}", None)
            self._state.put(f"trail/{name}", None)

    def _put_ceilings(self, progress: SweepProgress) -> None:
        """Put the top of the loss axis for each unit of the losses."""
        units: dict[str, list[pl.DataFrame]] = {}
        for run in progress.runs:
            losses = self._runs[run.name].losses if run.name in self._runs else None
            if losses is not None and losses.height:
                units.setdefault(run.record.facts.loss_unit, []).append(losses)
        tops = {unit: sweep_frames.loss_ceiling(pl.concat(frames)) for unit, frames in units.items()}
        self._state.put("ceilings", {unit: float(f"{top:.6g}") for unit, top in tops.items()})

    def _put_pairs(self, scale: str, control: str) -> None:
        """Put the differences of each treatment at a scale, seed by seed, and their mean with its band."""
        frames = [c.means for name, c in self._runs.items() if c.means is not None and _scale(name) == scale]
        pairs = sweep_frames.paired_deltas(pl.concat(frames), control)
        means = sweep_frames.mean_deltas(pairs)
        for variant in pairs["variant"].unique().sort().to_list():
            rows = pairs.filter(variant=variant).sort("tokens").partition_by("seed", "phase", as_dict=True)
            seeds = [
                {"seed": seed, "phase": phase, **_columns(frame, {"t": "tokens", "y": "delta"})}
                for (seed, phase), frame in sorted(rows.items())
            ]
            names = {"t": "tokens", "y": "mean", "low": "low", "high": "high", "n": "n"}
            phases = means.filter(variant=variant).partition_by("phase", as_dict=True)
            mean = {str(phase): _columns(frame.sort("tokens"), names) for (phase,), frame in phases.items()}
            self._state.put(f"pair/{variant}/{scale}", {"seeds": seeds, "mean": mean})


def _columns(frame: pl.DataFrame, names: dict[str, str]) -> dict[str, list]:
    return {key: json_numbers(frame[name].to_numpy()) for key, name in names.items()}


def _scale(name: str) -> str:
    return name.partition("/")[0]


def _change_times(run: RunDir) -> tuple[int, ...]:
    """Return when files of a run were last added or removed: a new status changes this, a new part too."""
    return tuple(_change_time(path) for path in (run.path, run.metrics))


def _change_time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
