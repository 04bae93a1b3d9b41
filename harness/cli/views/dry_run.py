"""A sweep as it would be trained: every run's time, memory and disk, and who trains where and when."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from harness.cli.views.gantt_text import Bar, print_gantt
from harness.core.number_format import short
from harness.launcher.cost.step_cost import device_bytes, disk_bytes
from harness.launcher.placement.forecast import Forecast
from harness.launcher.runs import Block, Run
from harness.launcher.workers.progress import clock
from harness.report.tables.terminal import section
from harness.report.tables.text_table import Table, table

LISTED = 60
"""Runs that the table lists, the longest first."""


def print_outlook(blocks: Sequence[Block], outlook: Forecast, console: Console) -> None:
    """The table of runs, the Gantt, and what the whole comes to."""
    runs = [run for block in blocks for run in block.runs]
    console.print()
    section(console, "Runs", _table(runs, outlook))
    console.print()
    print_gantt(_bars(outlook), clock(outlook.plan.makespan), console)
    for line in _summary(runs, outlook):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(runs: Sequence[Run], outlook: Forecast) -> Table:
    columns = ("run", "devices", "seconds", "low to high", "memory a device", "disk")
    longest = sorted(runs, key=lambda run: -outlook.estimates[run.name].seconds)
    return table(columns, [_row(run, outlook) for run in longest[:LISTED]])


def _row(run: Run, outlook: Forecast) -> list[str]:
    each = outlook.estimates[run.name]
    return [
        run.name,
        str(run.devices),
        f"{each.seconds:.3g}",
        f"{each.low:.3g} to {each.high:.3g}",
        f"{short(device_bytes(run.facts, run.config.mesh))}B",
        f"{short(disk_bytes(run))}B",
    ]


def _bars(outlook: Forecast) -> list[Bar]:
    """Lanes in the order of their devices."""
    booked = sorted(outlook.plan.bookings, key=lambda each: (each.first, each.width, each.start))
    return [
        Bar(_lane(each.first, each.width, outlook.unit), each.task, each.block, each.start, each.end)
        for each in booked
    ]


def _lane(first: int, width: int, unit: str) -> str:
    name = unit.removesuffix("s")
    return f"{name} {first}" if width == 1 else f"{unit} {first}-{first + width - 1}"


def _summary(runs: Sequence[Run], outlook: Forecast) -> list[str]:
    plan = outlook.plan
    basis = min(outlook.estimates.values(), key=lambda each: each.runs)
    rests = "measured" if basis.runs else "in part a default"
    rests += f", steps times {basis.factor:.3g} as earlier predictions ask" if basis.factor != 1 else ""
    return [
        f"{clock(plan.makespan)} in all ({clock(outlook.low)} to {clock(outlook.high)}), "
        f"{plan.utilisation:.0%} of {outlook.capacity_text} in use; "
        f"no order or widths would take less than {clock(plan.ideal)}.",
        f"{short(sum(map(disk_bytes, runs)))}B of disk at most; the rate of this machine is {rests}.",
        "Nothing was written or trained.",
    ]
