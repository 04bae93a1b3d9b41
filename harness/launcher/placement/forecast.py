"""Forecast of a sweep before it is trained: the duration of each run, and when and where it will train."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.engine import EngineConfig, Isolation
from harness.launcher.cost.prediction_log import Correction, apply_correction
from harness.launcher.cost.step_cost import (
    LaunchConditions,
    Observation,
    RunEstimate,
    cpu_cores,
    estimate_run,
    possible_meshes,
)
from harness.launcher.placement.core_shares import (
    grouped_by_worker,
    seconds_in_turn,
    share_cores,
    takes_turns,
)
from harness.launcher.placement.options import DevicePartition, RunTask
from harness.launcher.placement.search import SweepSchedule, place_tasks
from harness.launcher.runs import Block, Run


class RunEstimator:
    """Estimates of runs from measurements that are read once. Each (run, mesh) is estimated once."""

    def __init__(
        self,
        observations: Sequence[Observation],
        corrections: Mapping[str, Correction] | None = None,
        conditions: LaunchConditions | None = None,
        besides: float = 0.0,
    ) -> None:
        """`corrections`: factors of the step time, by the evidence that a prediction rests on. `besides`:
        seconds of the sweep in which no run trains."""
        self._observations, self._corrections = observations, corrections or {}
        self._conditions, self.besides = conditions or LaunchConditions(), besides
        self._estimates: dict[tuple[Any, ...], RunEstimate] = {}

    @property
    def demand(self) -> float:
        """Cores that other processes ask for, over all cores."""
        return self._conditions.demand

    def estimate(self, run: Run, mesh: MeshConfig, oversubscription: float) -> RunEstimate:
        """Return the estimate of `run` on `mesh`, with `oversubscription` devices for each core."""
        key = (run.name, oversubscription, *dataclasses.astuple(mesh))
        if key not in self._estimates:
            placed_run = run.on_mesh(mesh)
            raw = estimate_run(
                placed_run, mesh.devices, oversubscription, self._observations, self._conditions
            )
            self._estimates[key] = apply_correction(raw, self._corrections)
        return self._estimates[key]


@dataclass(frozen=True)
class Forecast:
    """Estimates by run, and the schedule. Its tasks are runs on devices, or whole blocks on workers."""

    estimates: Mapping[str, RunEstimate]
    schedule: SweepSchedule
    unit: str
    """Unit that the schedule allocates: "devices" or "workers"."""
    oversubscription: float
    """Devices in use for each core of this host; 1 for real devices."""
    besides: float = 0.0
    """Seconds of the sweep in which no run trains: tokenising, the start of workers, comparison, report."""
    demand: float = 0.0
    """Cores that other processes ask for, over all cores, as the prediction assumes throughout."""

    @property
    def seconds(self) -> float:
        """Predicted wall seconds from here to the verdict."""
        return self.schedule.makespan + self.besides

    @property
    def capacity_text(self) -> str:
        """The capacity of the machine, such as "8 devices"."""
        count = self.schedule.devices
        return f"{count} {self.unit if count > 1 else self.unit.removesuffix('s')}"

    @property
    def low(self) -> float:
        """Lower bound of `seconds`. The errors of all runs add up: they share one rate."""
        return self.seconds * self._ratio([e.low for e in self.estimates.values()])

    @property
    def high(self) -> float:
        """Upper bound of `seconds`, as `low`."""
        return self.seconds * self._ratio([e.high for e in self.estimates.values()])

    def _ratio(self, bounds: Sequence[float]) -> float:
        return sum(bounds) / sum(estimate.seconds for estimate in self.estimates.values())


def forecast(
    blocks: Sequence[Block],
    settings: EngineConfig,
    workers: int,
    estimator: RunEstimator,
    fixed: Container[str] = (),
) -> Forecast:
    """Place the blocks on `engine.devices` devices, or without them on `workers` workers at a time. `fixed`:
    names of runs that keep their mesh. Raises UserError if a block does not fit."""
    if settings.devices:
        return _on_devices(blocks, settings, estimator, fixed)
    return _on_workers(blocks, settings, workers, estimator)


def with_meshes(blocks: Sequence[Block], sweep_forecast: Forecast) -> list[Block]:
    """Return the blocks in the order of their starts, each run on a mesh of the width that it was given.
    Workers take the longest block first, so that the last block to end is a short one and no core waits for a
    long one: for the three scales of the demo and two workers that is 32 units of time against 38."""
    if sweep_forecast.unit == "workers":
        return _longest_first(blocks, sweep_forecast.estimates)
    reservations = {reservation.task: reservation for reservation in sweep_forecast.schedule.reservations}
    return [
        Block(block.name, tuple(_at_width(run, reservations[run.name].width) for run in block.runs))
        for block in sorted(blocks, key=lambda block: reservations[block.runs[0].name].start)
    ]


def _longest_first(blocks: Sequence[Block], estimates: Mapping[str, RunEstimate]) -> list[Block]:
    """Sort the blocks by the seconds of their runs, whose sum counts if they take turns."""
    total = sum if takes_turns(blocks[0].runs[0].config) else max
    return sorted(blocks, key=lambda block: -total(estimates[run.name].seconds for run in block.runs))


def _at_width(run: Run, width: int) -> Run:
    return run if width == run.devices else run.on_mesh(possible_meshes(run.config)[width])


def _on_devices(
    blocks: Sequence[Block], settings: EngineConfig, estimator: RunEstimator, fixed: Container[str]
) -> Forecast:
    runs = [run for block in blocks for run in block.runs]
    oversubscription = _oversubscription(runs[0], settings.devices)
    by_width = {
        run.name: {
            mesh.devices: estimator.estimate(run, mesh, oversubscription)
            for mesh in ([run.config.mesh] if run.name in fixed else possible_meshes(run.config).values())
        }
        for run in runs
    }
    seconds = {name: {width: e.seconds for width, e in row.items()} for name, row in by_width.items()}
    tasks = [RunTask(run.name, run.block, seconds[run.name]) for run in runs]
    schedule = place_tasks(tasks, [DevicePartition("devices", settings.devices)], settings.schedule)
    estimates = {r.task: by_width[r.task][r.width] for r in schedule.reservations}
    return Forecast(estimates, schedule, "devices", oversubscription)


def _on_workers(
    blocks: Sequence[Block], settings: EngineConfig, workers: int, estimator: RunEstimator
) -> Forecast:
    """Schedule workers. Each trains one block, or one run, at a time, on devices of its own."""
    runs = [run for block in blocks for run in block.runs]
    if takes_turns(runs[0].config):
        return _in_turn(blocks, settings, workers, estimator)
    groups = {block.name: block.runs for block in blocks}
    if settings.isolation is Isolation.run:
        groups = {run.name: (run,) for run in runs}
    at_once = min(workers, len(groups))
    devices = at_once * max(sum(run.devices for run in group) for group in groups.values())
    oversubscription = _oversubscription(runs[0], devices)
    estimates = {run.name: estimator.estimate(run, run.config.mesh, oversubscription) for run in runs}
    slowest = {name: max(estimates[run.name].seconds for run in group) for name, group in groups.items()}
    tasks = [RunTask(name, name, {1: seconds}) for name, seconds in slowest.items()]
    schedule = place_tasks(tasks, [DevicePartition("workers", workers)], settings.schedule)
    return Forecast(estimates, schedule, "workers", oversubscription)


def _in_turn(
    blocks: Sequence[Block], settings: EngineConfig, workers: int, estimator: RunEstimator
) -> Forecast:
    """Schedule workers whose runs take turns on the cores that each has."""
    runs = [run for block in blocks for run in block.runs]
    devices = sum(share.devices for share in share_cores(grouped_by_worker(blocks), workers)[:workers])
    oversubscription = _oversubscription(runs[0], devices)
    estimates = {run.name: estimator.estimate(run, run.config.mesh, oversubscription) for run in runs}
    seconds = {name: estimate.seconds for name, estimate in estimates.items()}
    groups = grouped_by_worker(_longest_first(blocks, estimates))
    tasks = [
        RunTask(group.name, group.name, {1: seconds_in_turn(group.runs, seconds, share.devices)})
        for group, share in zip(groups, share_cores(groups, workers), strict=True)
    ]
    schedule = place_tasks(tasks, [DevicePartition("workers", workers)], settings.schedule)
    return Forecast(estimates, schedule, "workers", oversubscription)


def _oversubscription(run: Run, devices: int) -> float:
    return devices / cpu_cores() if run.config.cluster.platform == "cpu" else 1.0
