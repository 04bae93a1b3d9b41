"""A sweep as it would be trained: every run's time, memory and disk, and who trains where and when."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from harness.cli.views.gantt_text import GanttBar, print_gantt
from harness.core.number_format import format_si
from harness.launcher.cost.step_cost import device_bytes, disk_bytes
from harness.launcher.placement.forecast import Forecast
from harness.launcher.runs import Block, Run
from harness.launcher.workers.progress import format_clock
from harness.report.tables.terminal import print_table
from harness.report.tables.text_table import Table, make_table

LISTED = 60
"""Runs that the table lists, the longest first."""


def print_forecast(blocks: Sequence[Block], forecast: Forecast, console: Console) -> None:
    """The table of runs, the Gantt, and what the whole comes to."""
    runs = [run for block in blocks for run in block.runs]
    console.print()
    print_table(console, "Runs", _table(runs, forecast))
    console.print()
    print_gantt(_bars(forecast), format_clock(forecast.schedule.makespan), console)
    for line in _summary(runs, forecast):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(runs: Sequence[Run], forecast: Forecast) -> Table:
    columns = ("run", "devices", "seconds", "low to high", "memory a device", "disk")
    longest = sorted(runs, key=lambda run: -forecast.estimates[run.name].seconds)
    return make_table(columns, [_row(run, forecast) for run in longest[:LISTED]])


def _row(run: Run, forecast: Forecast) -> list[str]:
    estimate = forecast.estimates[run.name]
    return [
        run.name,
        str(run.devices),
        f"{estimate.seconds:.3g}",
        f"{estimate.low:.3g} to {estimate.high:.3g}",
        f"{format_si(device_bytes(run.facts, run.config.mesh))}B",
        f"{format_si(disk_bytes(run))}B",
    ]


def _bars(forecast: Forecast) -> list[GanttBar]:
    """Lanes in the order of their devices."""
    ordered = sorted(
        forecast.schedule.reservations,
        key=lambda booking: (booking.first_device, booking.width, booking.start),
    )
    return [
        GanttBar(
            _lane_name(booking.first_device, booking.width, forecast.unit),
            booking.task,
            booking.block,
            booking.start,
            booking.end,
        )
        for booking in ordered
    ]


def _lane_name(first: int, width: int, unit: str) -> str:
    name = unit.removesuffix("s")
    return f"{name} {first}" if width == 1 else f"{unit} {first}-{first + width - 1}"


def _summary(runs: Sequence[Run], forecast: Forecast) -> list[str]:
    plan = forecast.schedule
    basis = min(forecast.estimates.values(), key=lambda estimate: estimate.runs)
    basis_text = "measured" if basis.runs else "in part a default"
    basis_text += f", steps times {basis.factor:.3g} as earlier predictions ask" if basis.factor != 1 else ""
    return [
        f"{format_clock(plan.makespan)} in all ({format_clock(forecast.low)} to {format_clock(forecast.high)}), "
        f"{plan.utilisation:.0%} of {forecast.capacity_text} in use; "
        f"no order or widths would take less than {format_clock(plan.ideal_makespan)}.",
        f"{format_si(sum(map(disk_bytes, runs)))}B of disk at most; the rate of this machine is {basis_text}.",
        "Nothing was written or trained.",
    ]
