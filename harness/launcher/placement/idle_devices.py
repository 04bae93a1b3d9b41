"""Devices that a sweep was given and never uses, and what would use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.estimate.layout_limits import MESH_AXES, LayoutLimits, layout_limits
from harness.launcher.cost.step_cost import possible_meshes
from harness.launcher.placement.forecast import Forecast
from harness.launcher.placement.search import Reservation
from harness.launcher.runs import Run


def idle_devices(runs: Sequence[Run], forecast: Forecast) -> list[str]:
    """Return a line if `engine.devices` are more than are ever in use at once, with the reason and what would
    use more of them."""
    reservations, devices = forecast.schedule.reservations, forecast.schedule.devices
    used = max(_in_use(reservations, lane.start) for lane in reservations)
    if forecast.unit != "devices" or used >= devices:
        return []
    widest = max(reservations, key=lambda lane: lane.width)
    run = next(run for run in runs if run.name == widest.task)
    lanes = sum(lane.block == widest.block for lane in reservations)
    return [f"  places on {used} of {devices} devices: {_reason(run, widest.width, lanes, devices)}"]


def _in_use(reservations: Sequence[Reservation], moment: float) -> int:
    return sum(lane.width for lane in reservations if lane.start <= moment < lane.end)


def _reason(run: Run, width: int, lanes: int, devices: int) -> str:
    if run.config.engine.plan is not None:
        return f"the plan {run.config.engine.plan} has no layout for more"
    wider = [meshes for meshes in possible_meshes(run.config) if meshes > width]
    if wider:
        widths = f"{lanes} runs side by side have {width} each" if lanes > 1 else f"a run has {width}"
        return f"{widths}, and the next larger mesh would need {lanes * min(wider)}"
    microbatches = run.config.compute.microbatches
    rows, name = run.config.scale.batch // microbatches, "micro-batch" if microbatches > 1 else "batch"
    ways = [*_more_splits(run, devices // (lanes * width)), "a larger scale.batch"]
    ways += ["fewer compute.microbatches"] if microbatches > 1 else []
    return f"the {name} of {rows} sequences splits no further; {' or '.join(ways)} would use more"


def _more_splits(run: Run, factor: int) -> Iterator[str]:
    """Yield overrides of the axes that split no batch, up to `factor` times as far as they do."""
    limits: LayoutLimits = layout_limits(run.config, run.facts)
    for axis in MESH_AXES:
        if axis in ("data", "fsdp", "expert"):
            continue
        size = getattr(run.config.mesh, axis)
        larger = [n * size for n in range(2, factor + 1) if limits.divides(axis, n * size)]
        if larger:
            yield f"mesh.{axis}={max(larger)}"
