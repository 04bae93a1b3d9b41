"""Verdict of a sweep as trackers show it: k over the scales, mean differences with their band, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.compare import Comparison, compare
from harness.core import atomic_files
from harness.core.hashing import hash_json
from harness.records.paths import SweepDir
from harness.report.charts.save_images import draw_pictures
from harness.report.frames.sweep_frames import Frames, mean_deltas, paired_deltas, read_frames
from harness.report.tables.markdown import markdown
from harness.trackers.run_curves import CurveEnd
from harness.trackers.sent_runs import SentRuns
from harness.trackers.tracker_api import Point, RunEnd, TrackedRun

VERDICT = "verdict"
"""Name of the run that holds the decisions, the page and the pictures."""


@dataclass(frozen=True)
class VerdictCurve:
    """Curve of a finished comparison, which is sent anew if the comparison changes."""

    name: str
    group: str
    job_type: str
    version: str
    config: dict[str, Any] = field(default_factory=dict)
    all_points: Sequence[Point] = ()
    end: CurveEnd = CurveEnd(RunEnd.finished, {})  # noqa: RUF009

    def signature(self) -> str:
        """Return the hash of the comparison."""
        return self.version

    def labels(self, id: str, name: str) -> TrackedRun:
        """Label the run by its group."""
        return TrackedRun(id, name, self.group, self.job_type, self.config)

    def points(self, first: int) -> list[Point]:
        """Return the points from a step on."""
        return [point for point in self.all_points if point.step >= first]

    def ending(self) -> CurveEnd:
        """Return the summary and the files."""
        return self.end


def verdict_curves(sweep: SweepDir, records: SentRuns) -> list[VerdictCurve]:
    """Return the curves of the verdict that the sweep has printed; none before, or if they were sent."""
    stored = atomic_files.read_json(sweep.comparison)
    if not isinstance(stored, dict):
        return []
    version = hash_json({key: node for key, node in stored.items() if key != "times"})[:16]
    if records.run(VERDICT).signature == version:
        return []
    comparison = compare(sweep)
    frames = read_frames(sweep, comparison)
    files = _files(sweep, comparison, frames)
    return [
        *_multiplier_curves(comparison, version),
        *_mean_curves(comparison, frames, version),
        VerdictCurve(VERDICT, comparison.experiment, VERDICT, version, {"rule": stored["rule"]},
                     end=CurveEnd(RunEnd.finished, _decisions(comparison), files)),
    ]  # fmt: skip


def _multiplier_curves(comparison: Comparison, version: str) -> Iterator[VerdictCurve]:
    """Yield k of each treatment: a point a scale, in the order of compute, whose step is its number."""
    for ladder in comparison.ladder:
        rungs = [rung for rung in comparison.rungs if rung.variant == ladder.variant]
        points = []
        for number, rung in enumerate(sorted(rungs, key=lambda rung: rung.flops or 0.0)):
            k = rung.k
            numbers = {
                "tokens": rung.tokens, "flops": rung.flops, "k": k and k.k, "k_low": k and k.low,
                "k_high": k and k.high, "difference": rung.delta.mean, "difference_low": rung.delta.low,
                "difference_high": rung.delta.high,
            }  # fmt: skip
            points.append(Point(number, _known(numbers)))
        config = {"scales": [rung.scale for rung in rungs], "control": comparison.rule.control}
        yield VerdictCurve(f"k {ladder.variant}", comparison.experiment, "k", version, config, points,
                           CurveEnd(RunEnd.finished, {"decision": ladder.decision.value}))  # fmt: skip


def _mean_curves(comparison: Comparison, frames: Frames, version: str) -> Iterator[VerdictCurve]:
    """Yield the mean over seeds of each treatment's difference along the run, with its interval."""
    control = comparison.rule.control
    if frames.evals.is_empty():
        return
    means = mean_deltas(paired_deltas(frames.evals, control)).sort("step")
    for (scale, variant), rows in means.group_by(["scale", "variant"], maintain_order=True):
        points: dict[int, Point] = {}
        for row in rows.iter_rows(named=True):
            if row["phase"] == "branch":  # at the step of the branch the run itself goes on
                continue
            names = {"mean": "difference/mean", "low": "difference/low", "high": "difference/high"}
            numbers = {"tokens": row["tokens"], "n": row["n"]}
            numbers |= {name: row[column] for column, name in names.items()}
            points[row["step"]] = Point(row["step"], _known(numbers))
        yield VerdictCurve(f"{scale}/{variant} minus {control}", str(scale), "mean difference", version,
                           {"treatment": variant, "control": control}, [*points.values()])  # fmt: skip


def _known(numbers: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _decisions(comparison: Comparison) -> dict[str, Any]:
    """Return the sentence of the verdict, and decision and k of each treatment."""
    summary: dict[str, Any] = {"verdict": comparison.verdict}
    for ladder in comparison.ladder:
        summary[f"{ladder.variant} decision"] = ladder.decision.value
        if ladder.k and ladder.k.k is not None:
            numbers = {"k": ladder.k.k, "k_low": ladder.k.low, "k_high": ladder.k.high}
            summary |= {f"{ladder.variant} {name}": value for name, value in _known(numbers).items()}
    return summary


def _files(sweep: SweepDir, comparison: Comparison, frames: Frames) -> list[Path]:
    """Return the verdict as JSON and Markdown, the page, and the charts as pictures, which are drawn."""
    text = sweep.trackers / "verdict.md"
    atomic_files.write_text(text, markdown(comparison))
    pictures = [path for path in draw_pictures(comparison, frames, sweep.pictures) if path.suffix == ".png"]
    return [path for path in (sweep.comparison, text, sweep.report, *pictures) if path.exists()]
