"""Making of a plan for `harness plan`: predict, print, and write the files that were asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from harness.cli.json_output.json_text import json_text
from harness.cli.plan_report import page_content, write_plan
from harness.cli.views.plan import plan_sections
from harness.cli.views.plan_compilers import compiler_section
from harness.cli.views.plan_extrapolation import extrapolation_section
from harness.cli.views.plan_layouts import layouts_section
from harness.compare.results.to_json import to_json
from harness.config.compose import sweep_configs
from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.launcher.launch_plan import SweepRuns, forecast_runs
from harness.launcher.placement.search import SweepSchedule
from harness.launcher.runs import Block
from harness.launcher.stages.data_lines import data_lines
from harness.launcher.stages.summary import design_power
from harness.launcher.sweep import LaunchHooks, prepare_runs
from harness.plan.compilers.queries import ask_compilers, parse_targets
from harness.plan.extrapolation.evidence import read_evidence
from harness.plan.extrapolation.extrapolate import extrapolate
from harness.plan.plan_cluster import plan_on_cluster
from harness.plan.plan_local import plan_on_this_machine
from harness.plan.plan_types import SweepPlan
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables.plan_sections import print_sections

EVIDENCE = "evidence="


def make_plan(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Plan the runs that the overrides describe. `options` are those of `harness plan`. Raises UserError."""
    targets = () if options.compile is None else parse_targets(options.compile)
    evidence_sweep, overrides = _split_evidence(arguments)
    evidence = None if evidence_sweep is None else read_evidence(evidence_sweep)
    sweep_runs = prepare_runs(sweep_configs(overrides), LaunchHooks())
    sweep, runs = sweep_runs.sweep, sweep_runs.runs
    plan, power = _plan_runs(sweep_runs), design_power(sweep, runs)
    extrapolations = extrapolate(evidence, runs, plan.runs) if evidence else None
    answers = ask_compilers(runs, plan, targets)
    content = to_json(plan) | {"power": to_json(power), "bets": to_json(extrapolations)}
    content |= {"layers": to_json(answers)} if targets else {}
    sections = [*plan_sections(plan, [*power.lines, *power.advice])]
    sections.insert(1, PlanSection("Data", lines=tuple(line.strip() for line in data_lines(runs))))
    sections += [extrapolation_section(extrapolations)] if extrapolations else []
    sections += [compiler_section(answers)] if answers else []
    if runs[0].config.cluster.kinds and not any(run.config.roster.planned for run in runs):
        sections.append(layouts_section(plan, overrides, sweep.plan))
    content["page"] = page_content(arguments, plan, runs, sections)
    if options.json:
        print(json_text("plan", content))
    else:
        print_sections(sections, Console(), folded=options.layouts)
    if options.html or options.pictures:
        write_plan(sweep, content, html=options.html, pictures=options.pictures)


def _split_evidence(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the sweep that `evidence=` names (it is not a key of a config), and the other arguments."""
    sweeps = [word.partition("=")[2] for word in arguments if word.startswith(EVIDENCE)]
    if len(sweeps) > 1:
        raise UserError(f"{EVIDENCE} is given {len(sweeps)} times; a plan reads one sweep of pairs")
    return next(iter(sweeps), None), [word for word in arguments if not word.startswith(EVIDENCE)]


def _plan_runs(sweep_runs: SweepRuns) -> SweepPlan:
    """Plan on the cluster that the config describes, or on this machine if it describes no chips."""
    runs, cluster = sweep_runs.runs, sweep_runs.runs[0].config.cluster
    if cluster.kinds or any(run.config.roster.planned for run in runs):
        return plan_on_cluster(runs, cluster)
    plan = forecast_runs(sweep_runs)
    schedule, placed_runs = plan.forecast.schedule, {run.name: run for run in plan.runs}
    return plan_on_this_machine(
        [placed_runs[run.name] for run in runs],
        plan.forecast.estimates,
        block_starts(plan.blocks, schedule),
        makespan=Interval(schedule.makespan, plan.forecast.low, plan.forecast.high),
        devices=schedule.devices,
        utilisation=schedule.utilisation,
    )


def block_starts(blocks: Sequence[Block], schedule: SweepSchedule) -> dict[str, float]:
    """Return the second at which each run begins. Runs of a block that is placed as one begin together."""
    starts = {reservation.task: reservation.start for reservation in schedule.reservations}
    return {
        run.name: starts[run.name if run.name in starts else block.name]
        for block in blocks
        for run in block.runs
    }
