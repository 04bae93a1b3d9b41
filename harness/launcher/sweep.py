"""A sweep from configs to a verdict. `launch` lists its stages in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from harness.config.schema.run import Config
from harness.core.cache.cache_dir import check_cache_writable
from harness.core.cache.cache_usage import remove_unused
from harness.core.errors import UserError
from harness.core.host.host_load import OtherLoad
from harness.launcher.comparable_runs import check_comparable
from harness.launcher.cost.device_room import check_room, shortages
from harness.launcher.engines.factory import batch_scripts, make_engine
from harness.launcher.engines.local.fork_client import shared_server
from harness.launcher.launch_plan import (
    LaunchPlan,
    SweepRuns,
    forecast_runs,
    freeze_plan,
    kept_mesh_lines,
)
from harness.launcher.planned_layouts import check_planned_sizes, with_planned_layouts
from harness.launcher.runs import Run, check_distinct, check_trainable, make_blocks, run_dir, sweep_dir
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.data_lines import data_lines
from harness.launcher.stages.describe_runs import describe_configs
from harness.launcher.stages.interim_looks import Looks, interim_looks
from harness.launcher.stages.summary import Note, design_power, plan_lines, printer
from harness.launcher.stages.time_steps import check_step_times, time_variants
from harness.launcher.stages.train_runs import EngineMaker, ready_engine, train_runs
from harness.launcher.stages.tune_lr import tune_learning_rates
from harness.launcher.sweep_lock import hold_sweep_lock
from harness.records.paths import SweepDir
from harness.records.run.provenance import Facts
from harness.records.run.status import read_status
from harness.records.sweep import ledger
from harness.records.sweep.trusted_modules import remember_modules


@dataclass(frozen=True)
class Outcome:
    """End of a run. `failure` is the reason if it has no outcome, else empty."""

    run: str
    state: str
    step: int
    failure: str = ""


@dataclass(frozen=True)
class LaunchHooks:
    """Dependencies of a launch, which the command passes in and tests replace."""

    describe: Callable[[Sequence[Config]], list[Facts]] = describe_configs
    """Compute the facts of each config."""
    engine: EngineMaker = make_engine
    """Make the engine that starts workers."""
    conclude: Callable[[SweepDir, Console], None] = lambda *_: None
    """Compare the finished sweep and report the verdict."""
    show_plan: Callable[[LaunchPlan, Console], None] = lambda *_: None
    """Print the plan of a dry run (`engine.dry_run`)."""
    before_first_record: Callable[[SweepDir], None] = lambda _: None
    """Called after the last check that can refuse the sweep, before its first record is written."""
    tokenize: Callable[[Sequence[Config], Note], None] = lambda *_: None
    """Tokenise the sources of configs that nobody has read yet."""


def launch(
    configs: Sequence[Config], hooks: LaunchHooks | None = None, console: Console | None = None
) -> list[Outcome]:
    """Train every run that has not ended, compare, and report. Returns outcomes in the order of `configs`.
    Raises UserError for what the user can fix, before anything is written; Interrupted on Ctrl-C."""
    with shared_server():
        return _launch(configs, hooks or LaunchHooks(), console or Console())


def _launch(configs: Sequence[Config], hooks: LaunchHooks, console: Console) -> list[Outcome]:
    note, load = printer(console), OtherLoad()
    check_trainable(configs)
    check_step_times(configs[0])
    check_cache_writable()
    sweep_runs = prepare_runs(configs, hooks)
    for line in kept_mesh_lines(sweep_runs):
        note(line)
    if configs[0].engine.dry_run:
        return _show_dry_run(forecast_runs(sweep_runs, load), sweep_runs.runs, hooks, console)
    sweep_runs = _tokenize(sweep_runs, configs, hooks, note)
    sweep_runs, tuning = _tune(sweep_runs, hooks, console)
    plan = forecast_runs(sweep_runs, load)
    check_room([run for run in plan.runs if not run.ended])
    with hold_sweep_lock(plan.sweep):
        _report_edited_entries(plan.sweep, note)
        remaining = plan.keep(lambda run: not run.ended)
        engine = ready_engine(remaining, hooks.engine, note) if remaining else None
        hooks.before_first_record(plan.sweep)
        remember_modules(plan.sweep, [name for config in configs for name in config.imports])
        looks = _freeze_rule(sweep_runs, tuning, note)
        plan = freeze_plan(plan)
        failed = train_runs(plan, sweep_runs.runs, looks, engine, hooks.engine, console)
        time_variants(plan.sweep, sweep_runs.blocks, note)
        hooks.conclude(plan.sweep, console)
    remove_unused()
    return [_outcome(run, failed) for run in sweep_runs.runs]


def prepare_runs(configs: Sequence[Config], hooks: LaunchHooks) -> SweepRuns:
    """Describe the runs of a sweep and check them against each other. Writes nothing. Holds for any machine.
    Raises UserError for a rule, runs or pairs that cannot be compared fairly."""
    sweep, configs = sweep_dir(configs), with_planned_layouts(configs)
    freeze_rule.set_default_control(configs)
    freeze_rule.check_control(sweep, configs)
    freeze_rule.set_default_domains(sweep, configs)
    freeze_rule.learn_drift(sweep, configs)
    check_distinct(sweep, configs)
    for config in configs:
        interim_looks(config, config.rule.stopping)
    sweep_runs = _describe(sweep, configs, hooks)
    check_planned_sizes(sweep_runs.runs)
    check_comparable(sweep_runs.blocks)
    return sweep_runs


def _describe(sweep: SweepDir, configs: Sequence[Config], hooks: LaunchHooks) -> SweepRuns:
    facts = hooks.describe(configs)
    runs = [Run(config, fact, run_dir(sweep, config)) for config, fact in zip(configs, facts, strict=True)]
    return SweepRuns(sweep, runs, make_blocks(runs))


def _tokenize(sweep_runs: SweepRuns, configs: Sequence[Config], hooks: LaunchHooks, note: Note) -> SweepRuns:
    """Return the sweep, described again once its sources are tokenised: what a run is recorded with is
    counted and hashed, never estimated."""
    unread = [run for run in sweep_runs.runs if run.facts.has_unread_sources]
    if not unread:
        return sweep_runs
    for line in data_lines(unread):
        note(line)
    hooks.tokenize([run.config for run in unread], note)
    return prepare_runs(configs, hooks)


def _show_dry_run(
    plan: LaunchPlan, runs: Sequence[Run], hooks: LaunchHooks, console: Console
) -> list[Outcome]:
    """Print what would be trained, with the learning rates of the configs: tuning is not simulated."""
    lines = [*plan_lines(plan.sweep, runs, plan.forecast), *design_power(plan.sweep, runs).lines]
    for line in [*lines, *shortages(plan.runs)]:
        printer(console)(line)
    hooks.show_plan(plan, console)
    for text in batch_scripts(plan.settings, plan.sweep.path / "workers", plan.worker_specs):
        printer(console)("\n" + text)
    return [Outcome(run.name, "planned", 0) for run in runs]


def _tune(sweep_runs: SweepRuns, hooks: LaunchHooks, console: Console) -> tuple[SweepRuns, Mapping[str, Any]]:
    """Return the sweep with tuned learning rates, described again, and the tuning result by variant. Without
    `tune=lr` the sweep is unchanged and there is no result."""

    def launch_tuning(configs: Sequence[Config]) -> None:
        # Their names are not in a plan; they have the layouts of the runs that they are made from.
        engine = dataclasses.replace(configs[0].engine, plan=None)
        configs = [dataclasses.replace(config, engine=engine) for config in configs]
        quiet = dataclasses.replace(hooks, conclude=lambda *_: None, before_first_record=lambda _: None)
        outcomes = launch(configs, quiet, console)
        if failed := [outcome for outcome in outcomes if outcome.failure]:
            raise UserError(
                f"tune=lr: {failed[0].run} failed ({failed[0].failure}); fix that, and run the same "
                "command again"
            )

    configs, tuning = tune_learning_rates(sweep_runs.sweep, sweep_runs.runs, launch_tuning, printer(console))
    return (_describe(sweep_runs.sweep, configs, hooks) if tuning else sweep_runs), tuning


def _report_edited_entries(sweep: SweepDir, note: Note) -> None:
    for position in ledger.edited_positions(sweep):
        note(
            f"{sweep.ledger}: entry {position} was changed after it was written; it is ignored, and the "
            "verdict reports it"
        )


def _freeze_rule(sweep_runs: SweepRuns, tuning: Mapping[str, Any], note: Note) -> Looks | None:
    """Write the decision rule if none is written yet, and return the interim looks that it asks for."""
    sweep, configs = sweep_runs.sweep, [run.config for run in sweep_runs.runs]
    if deviation := freeze_rule.write_rule(sweep, configs[0], freeze_rule.compared_variants(configs), tuning):
        note(deviation)
    return interim_looks(configs[0], freeze_rule.frozen_stopping(sweep))


def _outcome(run: Run, failed: dict[str, str]) -> Outcome:
    status = read_status(run.dir)
    end = status.state.value
    failure = "" if status.state.ended else failed.get(run.name) or status.message or end
    return Outcome(run.name, end, status.step, failure)
