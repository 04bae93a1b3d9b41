"""The launcher as Hydra 1.3 finds it: a class in `hydra_plugins`. What it does is in harness.launcher.

Hydra imports this file at the start of every program in the environment, so it imports
nothing but Hydra, and there is no `hydra_plugins/__init__.py`, which would hide other launchers.
It runs the file before the module is known to `sys.modules`, so a dataclass here cannot have
postponed annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LauncherConfig:
    _target_: str = "hydra_plugins.harness_launcher.HarnessLauncher"
    compose_only: bool = False
    """Hand each job's config to the program instead of training it."""


class HarnessLauncher(Launcher):
    """Trains the runs of a sweep in blocks, each on its lane, and returns in Hydra's order."""

    def __init__(self, compose_only: bool = False, **_: Any) -> None:
        self._compose_only = compose_only

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from harness.config.compose_cache import remember_choices
        from harness.core.paths import runs_path

        config.runs = runs_path(config.runs)  # before Hydra makes a folder there
        remember_choices(hydra_context.config_loader)
        self._context, self._config, self._task = hydra_context, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if self._compose_only:
            load = self._context.config_loader.load_sweep_config
            values = [self._task(load(self._config, [*overrides])) for overrides in job_overrides]
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=value) for value in values]
        from harness.cli.hydra_jobs import launch_jobs

        return launch_jobs(self._context, self._config, job_overrides)


ConfigStore.instance().store(group="hydra/launcher", name="harness", node=LauncherConfig, provider="harness")
