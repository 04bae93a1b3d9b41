"""Between Hydra and the launcher: jobs become configs, results become what Hydra expects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from harness.cli.conclude import conclude
from harness.config.compose import to_resolved_config
from harness.core import atomic_files
from harness.launcher.placement.forecast import Forecast
from harness.launcher.runs import Block
from harness.launcher.sweep import LaunchHooks, Outcome, launch
from harness.records.paths import SweepDir

COMMAND_FILE = "multirun.yaml"


class RunFailed(Exception):
    """A run that was given up. Hydra raises it when it looks at the run's result."""


class QuietJobReturn(JobReturn):
    """A result that fails without Hydra's own report of it."""

    @property
    def return_value(self) -> Any:
        if self.status is JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def launch_jobs(
    context: HydraContext, master: DictConfig, jobs: Sequence[Sequence[str]]
) -> Sequence[JobReturn]:
    """Train every job, and answer in Hydra's order with small results."""
    loader = context.config_loader
    configs = [to_resolved_config(loader.load_sweep_config(master, [*overrides])) for overrides in jobs]
    command_file = Path(master.hydra.sweep.dir) / COMMAND_FILE
    hooks = LaunchHooks(
        conclude=conclude,
        show_plan=_show_plan,
        before_first_record=lambda sweep: _copy_command(command_file, sweep),
    )
    outcomes = launch(configs, hooks)
    return [_result(overrides, outcome) for overrides, outcome in zip(jobs, outcomes, strict=True)]


def _show_plan(blocks: Sequence[Block], forecast: Forecast, console: Console) -> None:
    from harness.cli.views.dry_run import print_forecast  # tables cost a third of a second to import

    print_forecast(blocks, forecast, console)


def _copy_command(command_file: Path, sweep: SweepDir) -> None:
    """What the command was, as Hydra wrote it."""
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
