"""`harness plan`: what a sweep would take, here or on a machine that is described."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rich.console import Console

from harness.cli.verb_parser import VerbParser
from harness.cli.verbs.calibrate import report_accuracy
from harness.cli.verbs.plan_report import page_content, write_plan
from harness.cli.views.plan import parts, print_parts
from harness.cli.views.plan_compilers import layers_part
from harness.cli.views.plan_extrapolation import bets_part
from harness.compare.results.to_json import to_json
from harness.config.compose import sweep_configs
from harness.core.errors import UserError
from harness.launcher.launch_plan import SweepRuns, forecast_runs
from harness.launcher.placement.search import SweepSchedule
from harness.launcher.runs import Block
from harness.launcher.stages.summary import design_power
from harness.launcher.sweep import LaunchHooks, prepare_runs
from harness.plan.compilers.queries import ask_compilers, parse_targets
from harness.plan.extrapolation.evidence import read_evidence
from harness.plan.extrapolation.extrapolate import extrapolate
from harness.plan.plan_cluster import plan_on_cluster
from harness.plan.plan_local import plan_on_this_machine
from harness.plan.plan_types import SweepPlan

EVIDENCE = "evidence="


def plan(arguments: Sequence[str]) -> int:
    """Exit status. Raises UserError."""
    options, given = _parse_options(arguments)
    if options.accuracy is not None:
        return report_accuracy(options.accuracy, as_json=options.json)
    targets = () if options.compile is None else parse_targets(options.layers)
    named, overrides = _evidence(given)
    evidence = read_evidence(named) if named is not None else None
    prepared = prepare_runs(sweep_configs(overrides), LaunchHooks())
    sweep, runs = prepared.sweep, prepared.runs
    sheet, found = _sheet(prepared), design_power(sweep, runs)
    bets = extrapolate(evidence, runs, sheet.runs) if evidence else None
    layers = ask_compilers(runs, sheet, targets)
    content = to_json(sheet) | {"power": to_json(found), "bets": to_json(bets)}
    content |= {"layers": to_json(layers)} if targets else {}
    said = [*parts(sheet, [*found.lines, *found.advice])]
    said += [bets_part(bets)] if bets else []
    said += [layers_part(layers)] if layers else []
    if options.json:
        print(json.dumps(content, indent=2, sort_keys=True, allow_nan=False))
    else:
        print_parts(said, Console(), folded=options.layouts)
    if options.html or options.pictures:
        content["page"] = page_content(given, sheet, runs, said)
        write_plan(sweep, content, html=options.html, pictures=options.pictures)
    return 0


def _parse_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the overrides between them."""
    parser = VerbParser("harness plan", add_help=False)
    for name in ("--json", "--layouts", "--html", "--pictures"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--compile", metavar="TARGETS")
    parser.add_argument("--accuracy", nargs="?", const="", metavar="ROWS.csv")
    options, overrides = parser.parse_known_args(arguments)
    if unknown := [each for each in overrides if each.startswith("-")]:
        parser.error(f"{unknown[0]} is none of its options")
    others = [
        *overrides,
        *(f"--{name}" for name in ("layouts", "html", "pictures") if getattr(options, name)),
    ]
    if options.accuracy is not None and others:
        parser.error(f"--accuracy is about what was predicted before: leave out {others[0]}")
    return options, overrides


def _evidence(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The sweep that `evidence=` names, which is no key of a config, and the overrides without it."""
    named = [each.partition("=")[2] for each in overrides if each.startswith(EVIDENCE)]
    if len(named) > 1:
        raise UserError(f"{EVIDENCE} is given {len(named)} times; a plan reads one sweep of pairs")
    return next(iter(named), None), [each for each in overrides if not each.startswith(EVIDENCE)]


def _sheet(prepared: SweepRuns) -> SweepPlan:
    """On the described machine, or on this one where its config says nothing of chips."""
    runs, cluster = prepared.runs, prepared.runs[0].config.cluster
    if cluster.kinds or any(run.config.roster.planned for run in runs):
        return plan_on_cluster(runs, cluster)
    plan = forecast_runs(prepared)
    placement, placed = plan.forecast.schedule, {run.name: run for run in plan.runs}
    ordered = [placed[run.name] for run in runs]
    return plan_on_this_machine(
        ordered,
        plan.forecast,
        block_starts(plan.blocks, placement),
        seconds=placement.makespan,
        devices=placement.devices,
        utilisation=placement.utilisation,
    )


def block_starts(blocks: Sequence[Block], placement: SweepSchedule) -> dict[str, float]:
    """Seconds after which each run begins; the runs of a block that was placed whole begin together."""
    begun = {booking.task: booking.start for booking in placement.reservations}
    return {
        run.name: begun[run.name if run.name in begun else block.name]
        for block in blocks
        for run in block.runs
    }
