"""Training of the runs that are left, from the preflight check of the engine to the last worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from harness.config.schema.engine import EngineConfig, Isolation
from harness.core import atomic_files
from harness.core.host.host_load import LoadHistory
from harness.launcher import run_directories
from harness.launcher.cost.device_room import shortages
from harness.launcher.cost.measurements import record_timings, utilisation_lines
from harness.launcher.engines.engine_api import Engine
from harness.launcher.launch_plan import LaunchPlan
from harness.launcher.run_directories import RunAction
from harness.launcher.runs import Block, Run, select_runs
from harness.launcher.stages.interim_looks import Looks, train_by_looks
from harness.launcher.stages.summary import Note, design_power, plan_lines, printer
from harness.launcher.sweep_lock import Interrupted, handle_signals, stop_on_signal
from harness.launcher.workers.progress import make_display
from harness.launcher.workers.supervisor import Supervisor
from harness.launcher.workers.worker_specs import assign_runs, input_files, shared_devices, worker_spec
from harness.records.sweep.time_left import predicted_parts

EngineMaker = Callable[[EngineConfig, Path], Engine]


def ready_engine(plan: LaunchPlan, make_engine: EngineMaker, note: Note) -> Engine:
    """Return an engine that has passed its preflight check. Raises UserError if it cannot train the plan."""
    logs = plan.sweep.path / "workers"
    engine, specs = make_engine(plan.settings, logs), plan.worker_specs
    with atomic_files.remove_new_dirs_on_error(logs), stop_on_signal():
        engine.check(specs, input_files(plan.runs), note)
    return engine


def train_runs(
    plan: LaunchPlan,
    runs: Sequence[Run],
    looks: Looks | None,
    engine: Engine | None,
    make_engine: EngineMaker,
    console: Console,
) -> dict[str, str]:
    """Train the runs that are left. Returns the reason for each run that was given up. `runs`: all runs of
    the sweep. `engine`: checked already; None if every run seemed to have ended."""
    note = printer(console)
    new = run_directories.create_new(plan.runs)
    complete = {
        run.name
        for run in plan.runs
        if run.name not in new and run_directories.prepare(plan.sweep, run, note) is RunAction.skip
    }
    todo = plan.keep(lambda run: run.name not in complete)
    if todo is None:
        sentence = f"all {len(runs)} runs were finished before, so none is trained again."
        note(f"{plan.sweep.path}: {sentence if len(runs) > 1 else 'its run was finished before.'}")
        if engine:
            engine.close()
        return {}
    lines = [*plan_lines(plan.sweep, runs, todo.forecast), *design_power(plan.sweep, runs).lines]
    for line in [*lines, *shortages(todo.runs)]:
        note(line)
    failed = _supervise(todo, runs, looks, engine or ready_engine(todo, make_engine, note), console)
    for line in utilisation_lines(plan.sweep, runs, plan.settings.devices):
        note(line)
    return failed


def _supervise(
    plan: LaunchPlan, runs: Sequence[Run], looks: Looks | None, engine: Engine, console: Console
) -> dict[str, str]:
    """Keep workers running until every run of the plan has ended or was given up. Returns the reasons."""
    settings = plan.settings
    display = make_display(runs, console, predicted_parts(plan.sweep))
    supervisor = Supervisor(
        engine,
        settings,
        display,
        1 if settings.isolation is Isolation.all else plan.workers,
        prepare=lambda run: run_directories.prepare(plan.sweep, run, display.note),
        make_spec=lambda assignment: worker_spec(plan.sweep, assignment),
        devices=shared_devices(settings, plan.blocks),
    )

    def train(blocks: Sequence[Block]) -> None:
        remaining = select_runs(blocks, lambda run: run.name not in supervisor.failed)
        supervisor.run(assign_runs(remaining, settings, plan.workers))

    def count_interruption(*_) -> None:  # raising here could start a worker and forget it
        supervisor.interruptions += 1

    load = LoadHistory()
    try:
        with load, handle_signals(count_interruption):
            try:
                if looks:
                    train_by_looks(plan.sweep, plan.blocks, looks, train, display.note)
                else:
                    train(plan.blocks)
            except (BrokenPipeError, SystemExit):  # nobody reads the output any more: stop as on Ctrl-C
                supervisor.interruptions = 1
                with contextlib.suppress(Interrupted):
                    supervisor.run([])
                raise
    finally:
        display.close()
        engine.close()
        # Learn also after an interruption: a later launch leaves out the runs that have finished by now.
        if settings.name == "local":  # timings from other machines do not hold for this one
            for line in record_timings(plan.sweep, plan.runs, plan.forecast.oversubscription, load):
                printer(console)(line)
    return supervisor.failed
