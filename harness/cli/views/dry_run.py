"""Predicted time, memory and disk of every run of a sweep, and its schedule, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from harness.cli.views.gantt_text import GanttBar, print_gantt
from harness.core.number_format import format_clock, format_si
from harness.launcher.cost.device_room import run_bytes
from harness.launcher.cost.step_cost import CALIBRATED, COMPUTED, disk_bytes
from harness.launcher.placement.forecast import Forecast
from harness.launcher.runs import Block, Run
from harness.report.tables.terminal import print_table
from harness.report.tables.text_table import Table, make_table

LISTED = 60
"""Number of runs in the table, the longest first."""


def print_forecast(blocks: Sequence[Block], forecast: Forecast, console: Console) -> None:
    """Print the table of runs, the Gantt chart, and the totals."""
    runs = [run for block in blocks for run in block.runs]
    console.print()
    title = "Runs" if len(runs) <= LISTED else f"Runs, the {LISTED} longest of {len(runs)}"
    print_table(console, title, _table(runs, forecast))
    console.print()
    print_gantt(_bars(forecast), format_clock(forecast.schedule.makespan), console)
    for line in _summary(runs, forecast):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(runs: Sequence[Run], forecast: Forecast) -> Table:
    columns = ("run", "devices", "seconds", "low to high", "memory a device", "disk")
    longest = sorted(runs, key=lambda run: -forecast.estimates[run.name].seconds)
    rows = (
        (run.name, str(run.devices), f"{estimate.seconds:.3g}", f"{estimate.low:.3g} to {estimate.high:.3g}",
         f"{format_si(run_bytes(run))}B", f"{format_si(disk_bytes(run))}B")
        for run in longest[:LISTED]
        for estimate in [forecast.estimates[run.name]]
    )  # fmt: skip
    return make_table(columns, rows)


def _bars(forecast: Forecast) -> list[GanttBar]:
    """Build the bars, lanes in the order of their devices."""
    reservations = forecast.schedule.reservations
    return [
        GanttBar(_lane_name(r.first_device, r.width, forecast.unit), r.task, r.block, r.start, r.end)
        for r in sorted(reservations, key=lambda r: (r.first_device, r.width, r.start))
    ]


def _lane_name(first: int, width: int, unit: str) -> str:
    name = unit.removesuffix("s")
    return f"{name} {first}" if width == 1 else f"{unit} {first}-{first + width - 1}"


def _summary(runs: Sequence[Run], forecast: Forecast) -> list[str]:
    schedule = forecast.schedule
    times = forecast.seconds, forecast.low, forecast.high, schedule.ideal_makespan
    total, low, high, bound = map(format_clock, times)
    basis = min(forecast.estimates.values(), key=lambda estimate: estimate.runs)
    default_speed = basis.evidence if basis.evidence in (COMPUTED, CALIBRATED) else "partly a default"
    speed = "measured" if basis.runs else default_speed
    speed += f", and steps times {basis.factor:.3g} from earlier predictions" if basis.factor != 1 else ""
    return [
        f"{total} in all ({low} to {high}), {schedule.utilisation:.0%} of {forecast.capacity_text} in use; "
        f"no schedule can take less than {bound}.",
        f"{format_si(sum(map(disk_bytes, runs)))}B of disk at most; the speed of this machine is {speed}.",
        "Nothing was written or trained.",
    ]
