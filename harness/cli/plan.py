"""`harness plan`: what a sweep would take, here or on a machine that is described."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from harness.cli.calibrate import calibrate
from harness.cli.plan_report import page_of, write_plan
from harness.compare.results import to_json
from harness.config.compose import sweep_configs
from harness.fleet.announce import resolution
from harness.fleet.launch import Tools, asked, foreseen
from harness.fleet.runs import Block, Run
from harness.fleet.schedule import Plan
from harness.plan.elsewhere import plan_elsewhere
from harness.plan.here import plan_here
from harness.plan.sheet import Sheet
from harness.plan.view import print_sheet
from harness.records.layout import SweepDir
from harness.report.command import Options


def plan(arguments: Sequence[str]) -> int:
    """Exit status. Raises UserError."""
    parser = Options("harness plan", add_help=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--html", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--calibrate", nargs="?", const="", metavar="ROWS.csv")
    options, overrides = parser.parse_known_args(arguments)
    if unknown := [each for each in overrides if each.startswith("-")]:
        parser.error(f"{unknown[0]} is none of its options")
    if options.calibrate is not None:
        if overrides:
            parser.error(f"--calibrate is about what was predicted before: leave out {overrides[0]}")
        return calibrate(options.calibrate, as_json=options.json)
    sweep, runs = asked(sweep_configs(overrides), Tools())
    sheet, found = _sheet(sweep, runs), resolution(sweep, runs)
    content, power = to_json(sheet) | {"power": to_json(found)}, [*found.lines, *found.advice]
    if options.json:
        print(json.dumps(content, indent=2, sort_keys=True, allow_nan=False))
    else:
        print_sheet(sheet, power, Console(), layouts=options.layouts)
    if options.html or options.pictures:
        shown = page_of(overrides, sheet, runs, power)
        write_plan(sweep, content | {"page": shown}, html=options.html, pictures=options.pictures)
    return 0


def _sheet(sweep: SweepDir, runs: Sequence[Run]) -> Sheet:
    """On the described machine, or on this one where its config says nothing of chips."""
    cluster = runs[0].config.cluster
    if cluster.kinds or any(run.config.ladder.planned for run in runs):
        return plan_elsewhere(runs, cluster)
    blocks, outlook = foreseen(sweep, runs)
    placement, placed = outlook.plan, {run.name: run for block in blocks for run in block.runs}
    ordered = [placed[run.name] for run in runs]
    return plan_here(
        ordered,
        outlook,
        _starts(blocks, placement),
        seconds=placement.makespan,
        devices=placement.devices,
        utilisation=placement.utilisation,
    )


def _starts(blocks: Sequence[Block], placement: Plan) -> dict[str, float]:
    """Seconds after which each run begins; the runs of a block that was placed whole begin together."""
    begun = {booking.task: booking.start for booking in placement.bookings}
    return {
        run.name: begun[run.name if run.name in begun else block.name]
        for block in blocks
        for run in block.runs
    }
