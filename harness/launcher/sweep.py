"""A sweep from configs to a verdict. The order of the calls in `launch` is the order of its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.config.schema.engine import EngineConfig, Isolation
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher import run_directories
from harness.launcher.cost.measurements import corrections_of, known, learn, put_to_use
from harness.launcher.engines.engine_api import Engine
from harness.launcher.engines.factory import make_engine, scripts
from harness.launcher.placement import frozen
from harness.launcher.placement.forecast import Outlook, look_ahead, shaped
from harness.launcher.run_directories import Ready
from harness.launcher.runs import (
    Block,
    Run,
    check_distinct,
    check_processes,
    check_trainable,
    directory,
    make_blocks,
    sweep_of,
)
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.describe_runs import described
from harness.launcher.stages.interim_looks import Looks, looks_of, train_by_looks
from harness.launcher.stages.summary import plan_lines, power_lines
from harness.launcher.stages.time_steps import time_variants
from harness.launcher.stages.tune_lr import tune
from harness.launcher.sweep_lock import Interrupted, driving, leaving_when_told, signals_to
from harness.launcher.workers.progress import make_display
from harness.launcher.workers.supervisor import Supervisor
from harness.launcher.workers.worker_specs import assignments, files, order_of, workers_at_a_time
from harness.records.paths import SweepDir
from harness.records.run.provenance import Facts
from harness.records.run.run_lock import worker_of
from harness.records.run.status import read_status
from harness.records.sweep import ledger

NOT_BELIEVED = "it is not acted upon, and the verdict tells of it"
Describe = Callable[[Sequence[Config]], list[Facts]]
EngineMaker = Callable[[EngineConfig, Path], Engine]
Conclude = Callable[[SweepDir, Console], None]
ShowPlan = Callable[[Sequence[Block], Outlook, Console], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `failure` is empty where it has an outcome."""

    run: str
    state: str
    step: int
    failure: str = ""


@dataclass(frozen=True)
class Tools:
    """What a launch leans on, so that a test can lean it on something else."""

    describe: Describe = described
    engine: EngineMaker = make_engine
    conclude: Conclude = lambda *_: None
    """Compares the finished sweep and reports it."""
    show_plan: ShowPlan = lambda *_: None
    """Prints what would be trained, where `engine.dry_run` is set."""
    begun: Callable[[SweepDir], None] = lambda _: None
    """Called when nothing stands against the sweep any more, before its first record is written."""


def launch(
    configs: Sequence[Config], tools: Tools | None = None, console: Console | None = None
) -> list[Outcome]:
    """Train every run that has no end yet, compare, report; outcomes in the order of `configs`.

    Raises UserError for what the user can mend, before anything is written; Interrupted on Ctrl-C.
    """
    tools, console = tools or Tools(), console or Console()
    check_trainable(configs)
    sweep, runs = asked(configs, tools)  # what is wrong is said before anything is tuned
    if configs[0].engine.dry_run:
        return _dry_run(sweep, runs, tools, console)
    configs, tuning = tune(sweep, configs, _launch_tuning(tools, console), tools.describe, _noting(console))
    runs = runs_of(sweep, configs, tools)
    blocks = make_blocks(runs)
    run_directories.check_identities(runs)
    _look_ahead(sweep, blocks)  # what does not fit is said before anything is written
    with driving(sweep):
        for position in ledger.edited(sweep):
            _noting(console)(
                f"{sweep.ledger}: entry {position} was changed after it was written; {NOT_BELIEVED}"
            )
        left = _kept(blocks, lambda run: not _ended(run))
        engine = _ready(sweep, left, tools, _noting(console)) if left else None
        tools.begun(sweep)
        if deviation := freeze_rule.write_down(sweep, configs[0], freeze_rule.compared(configs), tuning):
            _noting(console)(deviation)
        looks = looks_of(configs[0], freeze_rule.fixed_stopping(sweep))
        failed = _train(sweep, blocks, runs, looks, engine, tools, console)
        time_variants(sweep, blocks, _noting(console))
        tools.conclude(sweep, console)
    return [_outcome(run, failed) for run in runs]


def asked(configs: Sequence[Config], tools: Tools) -> tuple[SweepDir, list[Run]]:
    """A sweep and its runs, on whatever machine they are to be. Raises UserError for what is not fair."""
    sweep = sweep_of(configs)
    freeze_rule.complete(configs)
    freeze_rule.check(sweep, configs)
    check_distinct(sweep, configs)
    for config in configs:
        looks_of(config, config.rule.stopping)
    return sweep, runs_of(sweep, configs, tools)


def runs_of(sweep: SweepDir, configs: Sequence[Config], tools: Tools) -> list[Run]:
    """The runs as described, in blocks that are fair. Raises UserError."""
    facts = tools.describe(configs)
    runs = [Run(config, fact, directory(sweep, config)) for config, fact in zip(configs, facts, strict=True)]
    make_blocks(runs)
    return runs


def _train(
    sweep: SweepDir,
    blocks: Sequence[Block],
    runs: Sequence[Run],
    looks: Looks | None,
    engine: Engine | None,
    tools: Tools,
    console: Console,
) -> dict[str, str]:
    """Train what is left. `engine`: that is ready for it; None where every run seemed to have ended. Returns
    the runs that were given up, and why."""
    settings, note = runs[0].config.engine, _noting(console)
    todo = _unfinished(sweep, _placed(sweep, blocks, note), note)
    if not todo:
        if engine:
            engine.close()
        return {}
    workers, todo, outlook = _look_ahead(sweep, todo)
    for line in [*plan_lines(sweep, runs, outlook), *power_lines(sweep, runs)]:
        note(line)
    engine = engine or _ready(sweep, todo, tools, note)
    display = make_display(runs, console)
    supervisor = Supervisor(
        engine,
        settings,
        display,
        1 if settings.isolation is Isolation.all else workers,
        prepare=lambda run: run_directories.prepare(sweep, run, display.note),
        order=lambda assignment: order_of(sweep, assignment),
        devices=settings.devices,
    )

    def train(blocks: Sequence[Block]) -> None:
        left = _kept(blocks, lambda run: run.name not in supervisor.failed)
        supervisor.run(assignments(left, settings, workers))

    try:
        with _counting_interruptions(supervisor):
            if looks:
                train_by_looks(sweep, todo, looks, train, display.note)
            else:
                train(todo)
    finally:
        display.close()
        engine.close()
        # Here, since what had finished when the user left stands, and is in no later launch.
        if settings.name == "local":  # what other machines took says nothing of this one
            for line in learn(sweep, [run for block in todo for run in block.runs], outlook.crowd):
                note(line)
    for line in put_to_use(runs, settings.devices):
        note(line)
    return supervisor.failed


def _ready(sweep: SweepDir, blocks: Sequence[Block], tools: Tools, note: Callable[[str], None]) -> Engine:
    """The engine that is to train these blocks. Raises UserError where it could not."""
    settings = blocks[0].runs[0].config.engine
    workers, blocks, _ = _look_ahead(sweep, blocks)
    engine = tools.engine(settings, sweep.path / "workers")
    orders = [order_of(sweep, each) for each in assignments(blocks, settings, workers)]
    with atomic_files.leaving_nothing(sweep.path / "workers"), leaving_when_told():
        engine.check(orders, files([run for block in blocks for run in block.runs]), note)
    return engine


def _look_ahead(
    sweep: SweepDir, blocks: Sequence[Block], replanned: Sequence[str] = ()
) -> tuple[int, list[Block], Outlook]:
    """Workers at a time, the blocks in their order and on their meshes, and what will become of them."""
    config = blocks[0].runs[0].config
    workers = workers_at_a_time(config.engine, blocks)
    places = {name: place for name, place in frozen.frozen(sweep).items() if name not in replanned}
    if config.engine.devices:
        blocks = [frozen.block_as_placed(block, places) for block in blocks]
    platform = config.cluster.platform
    outlook = look_ahead(blocks, config.engine, workers, known(platform), places, corrections_of(platform))
    blocks = shaped(blocks, outlook)
    check_processes(blocks)
    return workers, blocks, outlook


def _dry_run(sweep: SweepDir, runs: Sequence[Run], tools: Tools, console: Console) -> list[Outcome]:
    """Print what would be trained. Learning rates that would be tuned first are not in it."""
    blocks, outlook = foreseen(sweep, runs)
    for line in [*plan_lines(sweep, runs, outlook), *power_lines(sweep, runs)]:
        _noting(console)(line)
    tools.show_plan(blocks, outlook, console)
    settings = runs[0].config.engine
    orders = [
        order_of(sweep, each) for each in assignments(blocks, settings, workers_at_a_time(settings, blocks))
    ]
    for text in scripts(settings, sweep.path / "workers", orders):
        console.print("\n" + text, markup=False, highlight=False, soft_wrap=True)
    return [Outcome(run.name, "planned", 0) for run in runs]


def foreseen(sweep: SweepDir, runs: Sequence[Run]) -> tuple[list[Block], Outlook]:
    """The blocks as they would be trained on this machine, and what becomes of them. Raises UserError."""
    run_directories.check_identities(runs)
    _, blocks, outlook = _look_ahead(sweep, make_blocks(runs))
    return blocks, outlook


def _launch_tuning(tools: Tools, console: Console) -> Callable[[Sequence[Config]], None]:
    """Trains the sweep that tunes this one; it is not compared."""

    def launch_tuning(configs: Sequence[Config]) -> None:
        quiet = dataclasses.replace(tools, conclude=lambda *_: None, begun=lambda _: None)
        outcomes = launch(configs, quiet, console)
        if failed := [outcome for outcome in outcomes if outcome.failure]:
            raise UserError(
                f"tune=lr: {failed[0].run} failed ({failed[0].failure}); mend that, and give the same "
                "command again"
            )

    return launch_tuning


def _noting(console: Console) -> Callable[[str], None]:
    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return note


def _kept(blocks: Sequence[Block], keep: Callable[[Run], bool]) -> list[Block]:
    """Blocks with those of their runs that are kept."""
    kept = [Block(block.name, tuple(run for run in block.runs if keep(run))) for block in blocks]
    return [block for block in kept if block.runs]


def _placed(sweep: SweepDir, blocks: Sequence[Block], note: Callable[[str], None]) -> list[Block]:
    """Blocks in the order in which they are trained, each run on the mesh that it is frozen to."""
    replanned = _to_replan(sweep, blocks)
    _, blocks, outlook = _look_ahead(sweep, blocks, replanned)
    places = frozen.freeze(sweep, blocks, replanned, outlook.estimates)
    moved = [run for block in blocks for run in frozen.moved(block.runs, places)]
    if moved:
        note(
            f"{moved[0].name} and {len(moved) - 1} more keep the mesh of their first launch; "
            "resume.replan=true would start unfinished blocks over on the new one"
        )
    placed = []
    for block in blocks:
        ordered = sorted(block.runs, key=lambda run: places[run.name].lane)
        placed.append(Block(block.name, tuple(frozen.as_placed(run, places) for run in ordered)))
    return placed


def _to_replan(sweep: SweepDir, blocks: Sequence[Block]) -> list[str]:
    """Runs that get a new place: all of a block that is not finished, since a pair shares its mesh shape.

    Raises UserError while a worker has one of them.
    """
    if not blocks[0].runs[0].config.resume.replan:
        return []
    runs = [run for block in blocks if not all(_ended(run) for run in block.runs) for run in block.runs]
    if any(worker_of(run.dir) for run in runs):
        raise UserError(f"resume.replan=true: runs are at work; `harness stop {sweep.path}` first")
    return [run.name for run in runs]


def _ended(run: Run) -> bool:
    return read_status(run.dir).state.ended


def _unfinished(sweep: SweepDir, blocks: Sequence[Block], note: Callable[[str], None]) -> list[Block]:
    """Blocks with the runs that are left to train; directories of all others are in order."""
    left, new = [], run_directories.start_new([run for block in blocks for run in block.runs])
    for block in blocks:
        old = [run for run in block.runs if run.name not in new]
        stand = {run.name for run in old if run_directories.prepare(sweep, run, note) is Ready.stands}
        runs = tuple(run for run in block.runs if run.name not in stand)
        left += [Block(block.name, runs)] if runs else []
    return left


@contextmanager
def _counting_interruptions(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM are counted, not raised: no worker is started and then forgotten."""

    def count(*_) -> None:
        supervisor.interruptions += 1

    with signals_to(count):
        yield


def _outcome(run: Run, failed: dict[str, str]) -> Outcome:
    status = read_status(run.dir)
    end = status.state.value
    failure = "" if _ended(run) else failed.get(run.name) or status.message or end
    return Outcome(run.name, end, status.step, failure)


__all__ = ["Interrupted", "Outcome", "Tools", "driving", "launch"]
