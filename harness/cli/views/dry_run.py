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


def print_forecast(blocks: Sequence[Block], outlook: Forecast, console: Console) -> None:
    """The table of runs, the Gantt, and what the whole comes to."""
    runs = [run for block in blocks for run in block.runs]
    console.print()
    print_table(console, "Runs", _table(runs, outlook))
    console.print()
    print_gantt(_bars(outlook), format_clock(outlook.schedule.makespan), console)
    for line in _summary(runs, outlook):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(runs: Sequence[Run], outlook: Forecast) -> Table:
    columns = ("run", "devices", "seconds", "low to high", "memory a device", "disk")
    longest = sorted(runs, key=lambda run: -outlook.estimates[run.name].seconds)
    return make_table(columns, [_row(run, outlook) for run in longest[:LISTED]])


def _row(run: Run, outlook: Forecast) -> list[str]:
    estimate = outlook.estimates[run.name]
    return [
        run.name,
        str(run.devices),
        f"{estimate.seconds:.3g}",
        f"{estimate.low:.3g} to {estimate.high:.3g}",
        f"{format_si(device_bytes(run.facts, run.config.mesh))}B",
        f"{format_si(disk_bytes(run))}B",
    ]


def _bars(outlook: Forecast) -> list[GanttBar]:
    """Lanes in the order of their devices."""
    ordered = sorted(
        outlook.schedule.reservations,
        key=lambda booking: (booking.first_device, booking.width, booking.start),
    )
    return [
        GanttBar(
            _lane_name(booking.first_device, booking.width, outlook.unit),
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


def _summary(runs: Sequence[Run], outlook: Forecast) -> list[str]:
    plan = outlook.schedule
    basis = min(outlook.estimates.values(), key=lambda estimate: estimate.runs)
    basis_text = "measured" if basis.runs else "in part a default"
    basis_text += f", steps times {basis.factor:.3g} as earlier predictions ask" if basis.factor != 1 else ""
    return [
        f"{format_clock(plan.makespan)} in all ({format_clock(outlook.low)} to {format_clock(outlook.high)}), "
        f"{plan.utilisation:.0%} of {outlook.capacity_text} in use; "
        f"no order or widths would take less than {format_clock(plan.ideal_makespan)}.",
        f"{format_si(sum(map(disk_bytes, runs)))}B of disk at most; the rate of this machine is {basis_text}.",
        "Nothing was written or trained.",
    ]
