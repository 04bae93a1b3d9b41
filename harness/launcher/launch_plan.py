"""The plan of a launch: which runs are trained, in which order, on which meshes, and how long they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from harness.config.schema.engine import EngineConfig
from harness.core.errors import UserError
from harness.core.host.host_load import OtherLoad
from harness.launcher import run_directories
from harness.launcher.cost.launch_conditions import launch_conditions, seconds_besides_runs
from harness.launcher.cost.measurements import load_corrections, load_observations
from harness.launcher.cost.step_cost import cpu_cores
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.placement import frozen
from harness.launcher.placement.forecast import Forecast, RunEstimator, forecast, with_meshes
from harness.launcher.runs import Block, Run, check_processes, select_runs
from harness.launcher.same_data import check_same_data
from harness.launcher.workers.worker_specs import assign_runs, max_workers, worker_spec
from harness.records.paths import SweepDir
from harness.records.run.run_lock import worker_of


@dataclass(frozen=True)
class SweepRuns:
    """Runs of a sweep, described and checked against each other."""

    sweep: SweepDir
    runs: Sequence[Run]
    """All runs, in the order of their configs."""
    blocks: Sequence[Block]
    """The same runs in blocks, in order of appearance, on the meshes of their configs."""


@dataclass(frozen=True)
class LaunchPlan:
    """Blocks in the order of their predicted starts, each run on the mesh that it trains on."""

    sweep: SweepDir
    blocks: Sequence[Block]
    forecast: Forecast
    workers: int
    """Number of workers at a time."""
    estimator: RunEstimator

    @property
    def runs(self) -> list[Run]:
        """The runs of all blocks, in the order of the blocks."""
        return [run for block in self.blocks for run in block.runs]

    @property
    def settings(self) -> EngineConfig:
        """The engine config, which all runs share."""
        return self.blocks[0].runs[0].config.engine

    @property
    def platform(self) -> str:
        """The JAX platform, which all runs share."""
        return self.blocks[0].runs[0].config.cluster.platform

    @property
    def worker_specs(self) -> list[WorkerSpec]:
        """Specs of the workers that the plan starts."""
        assignments = assign_runs(self.blocks, self.settings, self.workers)
        return [worker_spec(self.sweep, assignment) for assignment in assignments]

    def keep(self, condition: Callable[[Run], bool]) -> LaunchPlan | None:
        """Return the plan of the runs that meet `condition`, or None if none does."""
        blocks = select_runs(self.blocks, condition)
        return self.with_blocks(blocks) if blocks else None

    def with_blocks(self, blocks: Sequence[Block]) -> LaunchPlan:
        """Return the plan of `blocks`, whose runs keep their meshes. The schedule is computed again, from the
        same estimates, only if a run or a mesh differs."""
        meshes = {run.name: run.config.mesh for block in blocks for run in block.runs}
        if meshes == {run.name: run.config.mesh for run in self.runs}:
            return dataclasses.replace(self, blocks=blocks)
        return _plan(self.sweep, blocks, self.estimator, fixed=meshes)


def forecast_runs(sweep_runs: SweepRuns, load: OtherLoad | None = None) -> LaunchPlan:
    """Return the plan of a sweep on this machine. Writes nothing but caches. Raises UserError if a directory
    holds another run, the data have changed since, or the runs do not fit on the machine. `load`: load of
    other processes since the command began."""
    run_directories.check_identities(sweep_runs.runs)
    check_same_data(sweep_runs.sweep, sweep_runs.runs)
    config, blocks = sweep_runs.runs[0].config, sweep_runs.blocks
    replan = {run.name for run in _runs_to_replan(blocks)}
    places = {name: p for name, p in frozen.read_places(sweep_runs.sweep).items() if name not in replan}
    blocks = [Block(b.name, tuple(frozen.on_frozen_mesh(run, places) for run in b.runs)) for b in blocks]
    platform = config.cluster.platform
    observations = load_observations(platform)
    todo = [run for run in sweep_runs.runs if not run.ended]
    conditions = launch_conditions(todo or sweep_runs.runs, observations, load)
    besides = seconds_besides_runs(todo, observations, conditions)
    estimator = RunEstimator(observations, load_corrections(platform), conditions, besides)
    return _plan(sweep_runs.sweep, blocks, estimator, fixed=places)


def kept_mesh_lines(sweep_runs: SweepRuns) -> list[str]:
    """Return a line if runs keep the mesh of their first launch although the command asks for another."""
    replan = {run.name for run in _runs_to_replan(sweep_runs.blocks)}
    places = frozen.read_places(sweep_runs.sweep)
    placed_runs = [run for run in sweep_runs.runs if run.name in places and run.name not in replan]
    runs = frozen.runs_on_other_mesh(placed_runs, places)
    if not runs:
        return []
    others = f" and {len(runs) - 1} more keep" if len(runs) > 1 else " keeps"
    return [
        f"{runs[0].name}{others} the mesh of the first launch; resume.replan=true would start unfinished "
        "blocks over on the new one."
    ]


def freeze_plan(plan: LaunchPlan) -> LaunchPlan:
    """Write the places of runs that have none yet, and return the plan with every run on its frozen mesh.
    Raises UserError if a run that `resume.replan` moves is held by a worker."""
    replan = _runs_to_replan(plan.blocks)
    if any(worker_of(run.dir) for run in replan):
        raise UserError(
            f"resume.replan=true: workers still train these runs. Run `harness stop {plan.sweep.path}` first."
        )
    names = {run.name for run in replan}
    simulated = plan.settings.name == "local" and plan.platform == "cpu"
    cores = cpu_cores() if simulated else None
    places = frozen.freeze_places(plan.sweep, plan.blocks, names, plan.forecast.estimates, cores)
    return plan.with_blocks([frozen.in_lane_order(block, places) for block in plan.blocks])


def _runs_to_replan(blocks: Sequence[Block]) -> list[Run]:
    """Return the runs that get a new place: whole unfinished blocks, since a pair shares its mesh shape."""
    if not blocks[0].runs[0].config.resume.replan:
        return []
    return [run for block in blocks if not all(run.ended for run in block.runs) for run in block.runs]


def _plan(
    sweep: SweepDir, blocks: Sequence[Block], estimator: RunEstimator, fixed: Container[str]
) -> LaunchPlan:
    """Schedule the blocks. `fixed`: names of runs that keep the mesh of their config."""
    settings = blocks[0].runs[0].config.engine
    workers = max_workers(settings, blocks)
    sweep_forecast = forecast(blocks, settings, workers, estimator, fixed)
    sweep_forecast = dataclasses.replace(sweep_forecast, besides=estimator.besides, demand=estimator.demand)
    blocks = with_meshes(blocks, sweep_forecast)
    check_processes(blocks)
    return LaunchPlan(sweep, blocks, sweep_forecast, workers, estimator)
