"""A sweep before it is trained: what each run will take, and where and when it will be trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from harness.config.schema.engine import EngineConfig, Isolation
from harness.launcher.cost.correction import Correction, corrected
from harness.launcher.cost.step_cost import Estimate, Observation, cores, estimate, meshes
from harness.launcher.placement.options import Partition, Task
from harness.launcher.placement.search import Plan, place
from harness.launcher.runs import Block, Run

Predict = Callable[[Run, int, float], Estimate]
"""Of a run on so many devices, on a machine so crowded."""


@dataclass(frozen=True)
class Outlook:
    """`estimates` by run; the tasks of `plan` are runs, or whole workers where those are what is counted."""

    estimates: Mapping[str, Estimate]
    plan: Plan
    unit: str
    """What the plan shares out: devices, or workers."""
    crowd: float
    """Devices in use for each core of this host; 1 where they are real."""

    @property
    def place(self) -> str:
        """How much of what, in words."""
        count = self.plan.devices
        return f"{count} {self.unit if count > 1 else self.unit.removesuffix('s')}"

    @property
    def low(self) -> float:
        return self.plan.makespan * self._ratio([each.low for each in self.estimates.values()])

    @property
    def high(self) -> float:
        """Wall seconds of the sweep. Runs are mispredicted together, since they rest on the same rate."""
        return self.plan.makespan * self._ratio([each.high for each in self.estimates.values()])

    def _ratio(self, bounds: Sequence[float]) -> float:
        return sum(bounds) / sum(each.seconds for each in self.estimates.values())


def look_ahead(
    blocks: Sequence[Block],
    settings: EngineConfig,
    workers: int,
    known: Sequence[Observation],
    fixed: Container[str] = (),
    corrections: Mapping[str, Correction] | None = None,
) -> Outlook:
    """Place the blocks on `engine.devices`, or among as many workers as are at work at a time.

    `fixed`: names of runs that keep the mesh that they have. `corrections`: of the time of a step, by what
    its prediction rests on. Raises UserError for what does not fit.
    """

    def predict(run: Run, width: int, crowd: float) -> Estimate:
        return corrected(estimate(run, width, crowd, known), corrections or {})

    if settings.devices:
        return _on_devices(blocks, settings, predict, fixed)
    return _on_workers(blocks, settings, workers, predict)


def shaped(blocks: Sequence[Block], outlook: Outlook) -> list[Block]:
    """Blocks in the order of their starts, each run with the mesh of the width that it was given."""
    if outlook.unit == "workers":
        return by_time(blocks, outlook.estimates)
    booked = {booking.task: booking for booking in outlook.plan.bookings}
    return [
        Block(block.name, tuple(_with_width(run, booked[run.name].width) for run in block.runs))
        for block in sorted(blocks, key=lambda block: booked[block.runs[0].name].start)
    ]


def by_time(blocks: Sequence[Block], estimates: Mapping[str, Estimate]) -> list[Block]:
    """Longest first, so that the last block to end is a short one and no core waits for a long one:
    on the three rungs of the demo and two workers that is 32 units of time against 38."""
    return sorted(blocks, key=lambda block: -max(estimates[run.name].seconds for run in block.runs))


def _with_width(run: Run, width: int) -> Run:
    if width == run.devices:
        return run
    return dataclasses.replace(run, config=dataclasses.replace(run.config, mesh=meshes(run.config)[width]))


def _on_devices(
    blocks: Sequence[Block], settings: EngineConfig, predict: Predict, fixed: Container[str]
) -> Outlook:
    runs = [run for block in blocks for run in block.runs]
    crowd = _crowd(runs[0], settings.devices)
    by_width = {
        run.name: {
            width: predict(run, width, crowd)
            for width in ([run.devices] if run.name in fixed else meshes(run.config))
        }
        for run in runs
    }
    tasks = [
        Task(run.name, run.block, {width: each.seconds for width, each in by_width[run.name].items()})
        for run in runs
    ]
    plan = place(tasks, [Partition("devices", settings.devices)], settings.schedule)
    estimates = {booking.task: by_width[booking.task][booking.width] for booking in plan.bookings}
    return Outlook(estimates, plan, "devices", crowd)


def _on_workers(blocks: Sequence[Block], settings: EngineConfig, workers: int, predict: Predict) -> Outlook:
    """Each worker trains one block, or one run, at a time, on devices of its own."""
    runs = [run for block in blocks for run in block.runs]
    groups = {block.name: block.runs for block in blocks}
    if settings.isolation is Isolation.run:
        groups = {run.name: (run,) for run in runs}
    at_work = min(workers, len(groups))
    devices = at_work * max(sum(run.devices for run in group) for group in groups.values())
    crowd = _crowd(runs[0], devices)
    estimates = {run.name: predict(run, run.devices, crowd) for run in runs}
    slowest = {name: max(estimates[run.name].seconds for run in group) for name, group in groups.items()}
    tasks = [Task(name, name, {1: seconds}) for name, seconds in slowest.items()]
    return Outlook(
        estimates, place(tasks, [Partition("workers", workers)], settings.schedule), "workers", crowd
    )


def _crowd(run: Run, devices: int) -> float:
    return devices / cores() if run.config.cluster.platform == "cpu" else 1.0
