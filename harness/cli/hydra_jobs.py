"""Adapter between Hydra and the launcher: turns jobs into configs, and outcomes into Hydra's results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from harness.cli.conclude import conclude
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.launcher.launch_plan import LaunchPlan
from harness.launcher.sweep import LaunchHooks, Outcome, launch
from harness.records.paths import SweepDir
from harness.trackers.known_trackers import check_trackers
from harness.trackers.mirror_processes import SweepMirrors

COMMAND_FILE = "multirun.yaml"
"""File in which Hydra writes the command."""


class RunFailed(Exception):
    """Error of a run that failed for good. Hydra raises it when it reads the run's result."""


class QuietJobReturn(JobReturn):
    """Result that raises its error without Hydra's own report of it."""

    @property
    def return_value(self) -> Any:
        """Value of the job. Raises its error if the job failed."""
        if self.status is JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        """Store the value, or the error of a failed job."""
        self._return_value = value


def launch_jobs(
    context: HydraContext, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> Sequence[JobReturn]:
    """Train every job. Return small results in Hydra's order."""
    loader = context.config_loader
    composed: list[Any] = [loader.load_sweep_config(master, [*overrides]) for overrides in jobs]
    configs = [job.to_config() for job in composed]  # as cache_compositions composes them
    check_trackers(configs[0].tracker)
    mirrors = SweepMirrors(configs[0].tracker, partial(print, file=sys.stderr))
    command_file = Path(master.hydra.sweep.dir) / COMMAND_FILE
    hooks = LaunchHooks(
        conclude=conclude,
        show_plan=_show_plan,
        tokenize=_tokenize,
        before_first_record=lambda sweep: _begin_records(sweep, command_file, mirrors),
    )
    with mirrors:
        outcomes = launch(configs, hooks)
    return [_result(overrides, outcome) for overrides, outcome in zip(jobs, outcomes, strict=True)]


def _tokenize(configs: Sequence[Config], note: Callable[[str], None]) -> None:
    from harness.worker.tokenize_sources import read_sources

    read_sources(configs, note)


def _show_plan(plan: LaunchPlan, console: Console) -> None:
    from harness.cli.views.dry_run import print_forecast  # tables cost a third of a second to import

    print_forecast(plan.blocks, plan.forecast, console)


def _begin_records(sweep: SweepDir, command_file: Path, mirrors: SweepMirrors) -> None:
    _copy_command(command_file, sweep)
    mirrors.start(sweep)


def _copy_command(command_file: Path, sweep: SweepDir) -> None:
    """Copy the command, as Hydra wrote it, into the sweep."""
    if command_file.exists():
        atomic_files.write_bytes(sweep.path / ".hydra" / COMMAND_FILE, command_file.read_bytes())


def _result(overrides: Sequence[str], outcome: Outcome) -> JobReturn:
    result = QuietJobReturn(overrides=overrides)
    if outcome.failure:
        result.status = JobStatus.FAILED
        result.return_value = RunFailed(f"{outcome.run}: {outcome.failure}")
    else:
        result.status = JobStatus.COMPLETED
        result.return_value = {"run": outcome.run, "state": outcome.state, "step": outcome.step}
    return result
