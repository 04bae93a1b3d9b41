"""A sweep before it is trained: what each run will take, and where and when it will be trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.engine import EngineConfig, Isolation
from harness.launcher.cost.correction import Correction, apply_correction
from harness.launcher.cost.step_cost import (
    Observation,
    RunEstimate,
    available_cores,
    estimate_run,
    possible_meshes,
)
from harness.launcher.placement.options import DevicePartition, RunTask
from harness.launcher.placement.search import SweepSchedule, place_tasks
from harness.launcher.runs import Block, Run


class RunEstimator:
    """Estimates of runs from measurements that are read once. Each (run, mesh) is estimated once."""

    def __init__(
        self, observations: Sequence[Observation], corrections: Mapping[str, Correction] | None = None
    ) -> None:
        """`corrections`: factors of the step time, by the evidence that a prediction rests on."""
        self._observations, self._corrections = observations, corrections or {}
        self._estimates: dict[tuple[Any, ...], RunEstimate] = {}

    def estimate(self, run: Run, mesh: MeshConfig, oversubscription: float) -> RunEstimate:
        """Return the estimate of `run` on `mesh`, with `oversubscription` devices for each core."""
        key = (run.name, oversubscription, *dataclasses.astuple(mesh))
        if key not in self._estimates:
            raw = estimate_run(run.on_mesh(mesh), mesh.devices, oversubscription, self._observations)
            self._estimates[key] = apply_correction(raw, self._corrections)
        return self._estimates[key]


@dataclass(frozen=True)
class Forecast:
    """`estimates` by run; the tasks of `plan` are runs, or whole workers where those are what is counted."""

    estimates: Mapping[str, RunEstimate]
    schedule: SweepSchedule
    unit: str
    """What the plan shares out: devices, or workers."""
    oversubscription: float
    """Devices in use for each core of this host; 1 where they are real."""

    @property
    def capacity_text(self) -> str:
        """How much of what, in words."""
        count = self.schedule.devices
        return f"{count} {self.unit if count > 1 else self.unit.removesuffix('s')}"

    @property
    def low(self) -> float:
        return self.schedule.makespan * self._ratio([each.low for each in self.estimates.values()])

    @property
    def high(self) -> float:
        """Wall seconds of the sweep. Runs are mispredicted together, since they rest on the same rate."""
        return self.schedule.makespan * self._ratio([each.high for each in self.estimates.values()])

    def _ratio(self, bounds: Sequence[float]) -> float:
        return sum(bounds) / sum(each.seconds for each in self.estimates.values())


def forecast(
    blocks: Sequence[Block],
    settings: EngineConfig,
    workers: int,
    estimator: RunEstimator,
    fixed: Container[str] = (),
) -> Forecast:
    """Place the blocks on `engine.devices`, or among as many workers as are at work at a time.

    `fixed`: names of runs that keep the mesh that they have. Raises UserError for what does not fit.
    """
    if settings.devices:
        return _on_devices(blocks, settings, estimator, fixed)
    return _on_workers(blocks, settings, workers, estimator)


def with_meshes(blocks: Sequence[Block], outlook: Forecast) -> list[Block]:
    """Blocks in the order of their starts, each run with the mesh of the width that it was given."""
    if outlook.unit == "workers":
        return longest_first(blocks, outlook.estimates)
    booked = {booking.task: booking for booking in outlook.schedule.reservations}
    return [
        Block(block.name, tuple(_with_width(run, booked[run.name].width) for run in block.runs))
        for block in sorted(blocks, key=lambda block: booked[block.runs[0].name].start)
    ]


def longest_first(blocks: Sequence[Block], estimates: Mapping[str, RunEstimate]) -> list[Block]:
    """Longest first, so that the last block to end is a short one and no core waits for a long one:
    on the three rungs of the demo and two workers that is 32 units of time against 38."""
    return sorted(blocks, key=lambda block: -max(estimates[run.name].seconds for run in block.runs))


def _with_width(run: Run, width: int) -> Run:
    if width == run.devices:
        return run
    return run.on_mesh(possible_meshes(run.config)[width])


def _on_devices(
    blocks: Sequence[Block], settings: EngineConfig, estimator: RunEstimator, fixed: Container[str]
) -> Forecast:
    runs = [run for block in blocks for run in block.runs]
    crowd = _crowd(runs[0], settings.devices)
    by_width = {
        run.name: {
            mesh.devices: estimator.estimate(run, mesh, crowd)
            for mesh in ([run.config.mesh] if run.name in fixed else possible_meshes(run.config).values())
        }
        for run in runs
    }
    tasks = [
        RunTask(run.name, run.block, {width: each.seconds for width, each in by_width[run.name].items()})
        for run in runs
    ]
    plan = place_tasks(tasks, [DevicePartition("devices", settings.devices)], settings.schedule)
    estimates = {booking.task: by_width[booking.task][booking.width] for booking in plan.reservations}
    return Forecast(estimates, plan, "devices", crowd)


def _on_workers(
    blocks: Sequence[Block], settings: EngineConfig, workers: int, estimator: RunEstimator
) -> Forecast:
    """Each worker trains one block, or one run, at a time, on devices of its own."""
    runs = [run for block in blocks for run in block.runs]
    groups = {block.name: block.runs for block in blocks}
    if settings.isolation is Isolation.run:
        groups = {run.name: (run,) for run in runs}
    at_work = min(workers, len(groups))
    devices = at_work * max(sum(run.devices for run in group) for group in groups.values())
    crowd = _crowd(runs[0], devices)
    estimates = {run.name: estimator.estimate(run, run.config.mesh, crowd) for run in runs}
    slowest = {name: max(estimates[run.name].seconds for run in group) for name, group in groups.items()}
    tasks = [RunTask(name, name, {1: seconds}) for name, seconds in slowest.items()]
    return Forecast(
        estimates,
        place_tasks(tasks, [DevicePartition("workers", workers)], settings.schedule),
        "workers",
        crowd,
    )


def _crowd(run: Run, devices: int) -> float:
    return devices / available_cores() if run.config.cluster.platform == "cpu" else 1.0
