"""Training of one run in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from threading import Event

from rich.console import Console

from harness.cli.hydra_jobs import RunFailed
from harness.config.schema.decision import TuneTarget
from harness.config.schema.run import Config
from harness.core.cache.cache_dir import check_cache_writable
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.launcher import run_directories
from harness.launcher.placement import frozen
from harness.launcher.planned_layouts import check_planned_sizes, with_planned_layouts
from harness.launcher.run_directories import RunAction
from harness.launcher.runs import Block, Run, check_trainable, run_dir, sweep_dir
from harness.launcher.same_data import check_same_data
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.describe_runs import describe_configs
from harness.launcher.sweep_lock import Interrupted, handle_signals, hold_sweep_lock
from harness.launcher.workers.progress import ending_text
from harness.records.run.provenance import Facts
from harness.records.run.run_lock import acquire, check_not_run_elsewhere
from harness.records.run.status import State, read_status
from harness.records.sweep.trusted_modules import remember_modules
from harness.trackers.known_trackers import check_trackers
from harness.trackers.mirror_processes import SweepMirrors


def train_single(config: Config) -> None:
    """Train the run of this config here, or print that it is done.

    Raises RunFailed if it ends without an outcome, and Interrupted if it was asked to stop.
    """
    if config.tune.name is not TuneTarget.none:
        raise UserError("tune=lr: one run cannot be tuned alone; use `harness sweep`")
    if config.engine.dry_run:
        raise UserError("engine.dry_run=true: use `harness sweep --dry-run`, which also takes one run")
    check_trainable([config])
    check_trackers(config.tracker)
    check_cache_writable()
    console = Console()
    sweep = sweep_dir([config])
    freeze_rule.set_default_control([config])
    freeze_rule.set_default_domains(sweep, [config])
    [config] = with_planned_layouts([config])
    run = Run(config, _describe(config, console.print), run_dir(sweep, config))
    check_planned_sizes([run])
    run_directories.check_identities([run])
    check_same_data(sweep, [run])
    with hold_sweep_lock(sweep):
        remember_modules(sweep, config.imports)
        places = frozen.freeze_places(sweep, [Block(run.block, (run,))])
        run = frozen.on_frozen_mesh(run, places)
        check_not_run_elsewhere(run.dir)
        action = run_directories.prepare(sweep, run, console.print)
        if action is RunAction.follow or not acquire(run.dir.worker_lock):
            raise UserError(f"{run.dir.path} is being trained by another process")
        if action is RunAction.train:
            with SweepMirrors(config.tracker, partial(print, file=sys.stderr)) as mirrors:
                mirrors.start(sweep)
                _train_here(run)
    status = read_status(run.dir)
    console.print(f"{run.dir.path}: {ending_text(status)}", markup=False, highlight=False, soft_wrap=True)
    if status.state is State.preempted:
        raise Interrupted
    if not status.state.ended:
        raise RunFailed(f"{run.name}: {status.message or status.state.value}")


def _describe(config: Config, write: Callable[[str], None]) -> Facts:
    """Return the facts of a run, whose sources are tokenised if nobody has read them yet."""
    [facts] = describe_configs([config])
    if not facts.has_unread_sources:
        return facts
    from harness.worker.tokenize_sources import read_sources

    read_sources([config], write)
    return describe_configs([config])[0]


def _train_here(run: Run) -> None:
    """Train the run. Set the environment first: importing the worker imports JAX, which reads it."""
    env = cpu_env(run.devices) if run.config.cluster.platform == "cpu" else {}
    os.environ.update(env)
    from harness.worker import main

    stop = Event()

    def leave(*_) -> None:
        stop.set()  # if this happens in a callback of JAX's, it swallows the error below
        raise Interrupted

    with handle_signals(leave):
        main.main([str(run.dir.path.absolute())], env, stop)
