"""Runs and cooldown branches of a sweep as trackers show them, read from their directories alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import to_plain
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import read_config
from harness.records.run.metrics import METRIC_PREFIX, list_parts, parts_from, read_parts
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.status import State, read_status
from harness.records.run.timeline import read_timeline
from harness.trackers.tracker_api import AXES, Point, RunEnd, TrackedRun

LABELS = ("scale", "variant", "seed")


@dataclass(frozen=True)
class RunRoles:
    """Roles of the variants, and the domains that decide, from the frozen rule."""

    control: str = ""
    positive_control: str = ""
    domains: tuple[str, ...] = ()

    def role(self, variant: str) -> str:
        """Return the role of a variant: `control`, `positive control` or `variant`."""
        roles = {self.control: "control", self.positive_control: "positive control"}
        return roles.get(variant, "variant")


@dataclass(frozen=True)
class CurveEnd:
    """End of a run, and what a tracker shows beside its curves."""

    end: RunEnd
    summary: Mapping[str, Any]
    files: Sequence[Path] = ()


class Curve(Protocol):
    """Curve that a tracker shows as a run."""

    @property
    def name(self) -> str:
        """Name of the curve in the sweep."""
        ...

    @property
    def version(self) -> str:
        """Hash that changes if what was sent before holds no more; empty for curves that only grow."""
        ...

    def signature(self) -> str:
        """Return a hash that changes whenever there is something new to read."""
        ...

    def labels(self, id: str, name: str) -> TrackedRun:
        """Return the labels of the run in a tracker. Raises UserError if its record is damaged."""
        ...

    def points(self, first: int) -> list[Point]:
        """Return the points from step `first` on."""
        ...

    def ending(self) -> CurveEnd:
        """Return the end of the run."""
        ...


@dataclass(frozen=True)
class RunCurve:
    """Curve of a run or of a cooldown branch."""

    name: str
    """Path below the sweep."""
    run: RunDir
    trunk: RunDir
    """The run itself, of which this may be a branch."""
    roles: RunRoles
    version: str = ""

    def signature(self) -> str:
        """Hash the names of the parts, which hold their checksums, and the state."""
        parts = [part.path.name for kind in ("evals", "steps") for part in list_parts(self.run, kind)]
        return _digest([*parts, read_status(self.run).state.value])

    def labels(self, id: str, name: str) -> TrackedRun:
        """Label the run by its block and its role."""
        record = _provenance(self.run)
        facts = {"parameters": record.parameters, "non_embedding": record.facts.non_embedding,
                 "flops_per_token": record.facts.flops_per_token, "tokens": record.tokens}  # fmt: skip
        return TrackedRun(
            id=id,
            name=name,
            group=f"{record.scale}/seed{record.seed}",
            job_type=self.roles.role(record.variant) + (" branch" if self.run != self.trunk else ""),
            config={**to_plain(read_config(self.run.config)), "facts": facts, "identity": record.identity},
            started=self.started(),
        )

    def started(self) -> float:
        """Return the UTC seconds at which the run began; 0 if nobody knows."""
        return next((entry.time for entry in read_timeline(self.trunk)), 0.0)

    def points(self, first: int) -> list[Point]:
        """Read the parts that hold these steps, up to where both kinds of them are complete."""
        kinds = {kind: parts_from(self.run, kind, first) for kind in ("evals", "steps")}
        end = min((parts[-1].end if parts else -1 for parts in kinds.values()), default=-1)
        rows: dict[int, dict[str, float]] = {}
        for kind, parts in kinds.items():
            frame = read_parts(parts, kind).filter(pl.col("step").is_between(first, end))
            values = _step_values(frame) if kind == "steps" else eval_values(frame, self.roles.domains)
            for step, numbers in values:
                rows.setdefault(step, {}).update(numbers)
        return [Point(step, rows[step]) for step in sorted(rows)]

    def ending(self) -> CurveEnd:
        """Read the status."""
        status = read_status(self.run)
        names = {State.finished: RunEnd.finished, State.stopped: RunEnd.finished}
        failures = dict.fromkeys((State.diverged, State.failed, State.oom, State.refused), RunEnd.failed)
        summary = {"state": status.state.value, "step": status.step, "message": status.message}
        return CurveEnd((names | failures).get(status.state, RunEnd.unfinished), summary)


@dataclass(frozen=True)
class PairCurve:
    """Paired difference of one block: held-out losses of a treatment minus those of its control."""

    name: str
    treatment: RunCurve
    control: RunCurve
    version: str = ""

    def signature(self) -> str:
        """Join the signatures of the two runs."""
        return _digest([self.treatment.signature(), self.control.signature()])

    def labels(self, id: str, name: str) -> TrackedRun:
        """Label the pair by its block."""
        scale, _, seed = self.treatment.name.split("/")
        config = {"treatment": self.treatment.name, "control": self.control.name}
        return TrackedRun(id, name, f"{scale}/{seed}", "paired difference", config, self.treatment.started())

    def points(self, first: int) -> list[Point]:
        """Subtract at the steps at which both runs were evaluated."""
        control = {point.step: point.values for point in self.control.points(first)}
        points = []
        for point in self.treatment.points(first):
            base = control.get(point.step, {})
            values = {
                name.replace("eval/", "difference/", 1): value - base[name]
                for name, value in point.values.items()
                if name.startswith("eval/") and name in base
            }
            if values:
                axes = {axis: point.values[axis] for axis in AXES if axis in point.values}
                points.append(Point(point.step, axes | values))
        return points

    def ending(self) -> CurveEnd:
        """Return the end of both runs: finished if both are."""
        ends = self.treatment.ending(), self.control.ending()
        last = {side: end.summary["state"] for side, end in zip(("treatment", "control"), ends, strict=True)}
        for end in (RunEnd.unfinished, RunEnd.failed):
            if any(item.end is end for item in ends):
                return CurveEnd(end, last)
        return CurveEnd(RunEnd.finished, last)


def read_roles(sweep: SweepDir) -> RunRoles:
    """Return the roles of the variants; without any until the rule is frozen."""
    rule = (atomic_files.read_json(sweep.rule) or {}).get("rule") or {}
    control, positive_control = (str(rule.get(name) or "") for name in ("control", "positive_control"))
    return RunRoles(control, positive_control, tuple(rule.get("domains") or ()))


def run_curves(sweep: SweepDir) -> Iterator[Curve]:
    """Yield the runs of a sweep with their branches, and then the paired differences."""
    roles, curves = read_roles(sweep), {}
    for run in sweep.runs():
        name = run.path.relative_to(sweep.path).as_posix()
        curves[name] = RunCurve(name, run, run, roles)
        yield curves[name]
        for branch in run.branches():
            yield RunCurve(f"{name}/{branch.path.name}", branch, run, roles)
    for name, curve in curves.items():
        scale, variant, seed = name.split("/")
        control = curves.get(f"{scale}/{roles.control}/{seed}")
        if control and variant != roles.control:
            yield PairCurve(f"{scale}/{variant} minus {roles.control}/{seed}", curve, control)


def fingerprint(point: Point) -> str:
    """Hash the values of a point, except times, which a step that is trained again does not repeat."""
    return _digest(
        {name: repr(value) for name, value in point.values.items() if not name.endswith("seconds")}
    )


def _step_values(frame: pl.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    for row in frame.iter_rows(named=True):
        names = {name: name if name in AXES else f"train/{name.removeprefix(METRIC_PREFIX)}" for name in row}
        yield (
            row["step"],
            {
                names[name]: float(value)
                for name, value in row.items()
                if value is not None and name != "step"
            },
        )


def eval_values(frame: pl.DataFrame, domains: Sequence[str]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield step and values of each row of evaluations: those of its domain, and the axes. The mean loss of
    the domains that decide (all without `domains`) is `eval/loss`."""
    losses: dict[int, list[float]] = {}
    for row in frame.iter_rows(named=True):
        values = {axis: float(row[axis]) for axis in AXES if row.get(axis) is not None}
        names = ["loss", "bits_per_byte", *(name for name in row if name.startswith(METRIC_PREFIX))]
        for name in names:
            if row.get(name) is not None:
                values[f"eval/{row['domain']}/{name.removeprefix(METRIC_PREFIX)}"] = float(row[name])
        if row["loss"] is not None and (not domains or row["domain"] in domains):
            losses.setdefault(row["step"], []).append(float(row["loss"]))
            values["eval/loss"] = sum(losses[row["step"]]) / len(losses[row["step"]])
        yield row["step"], values


def _provenance(run: RunDir) -> Provenance:
    record = read_provenance(run)
    if record is None:
        raise UserError(f"{run.run} is damaged, so the run is not mirrored; the sweep command mends it.")
    return record


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
