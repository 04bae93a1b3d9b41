"""Hydra 1.3 plugins: a launcher that trains a sweep with harness.launcher, and a sweeper that knows the word
`size` and questions. Hydra finds them by their place in `hydra_plugins`.

Hydra imports this file at the start of every program in the environment, so it imports nothing but Hydra. A
`hydra_plugins/__init__.py` would hide other launchers, so there is none. Hydra runs the file before the
module is in `sys.modules`, so a dataclass here cannot have postponed annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LauncherConfig:
    """Hydra config node of the launcher."""

    _target_: str = "hydra_plugins.harness_launcher.HarnessLauncher"
    compose_only: bool = False
    """True: pass each job's config to the task function instead of training it."""


class HarnessLauncher(Launcher):
    """Launcher that trains the runs of a sweep in blocks, each run on its lane."""

    def __init__(self, compose_only: bool = False, **_: Any) -> None:
        self._compose_only = compose_only

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the sweep's context, config and task function. Raises UserError if `runs` is not a path."""
        from harness.config.compose_cache import cache_compositions
        from harness.core.paths import runs_path

        config.runs = runs_path(config.runs)  # before Hydra creates a folder there
        cache_compositions(hydra_context.config_loader)
        self._context, self._config, self._task = hydra_context, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train one run per list of overrides, and return their results in the same order."""
        from harness.config.variants.swept_keys import name_variants

        jobs = name_variants(job_overrides)
        if self._compose_only:
            load = self._context.config_loader.load_sweep_config
            values = [self._task(load(self._config, [*overrides])) for overrides in jobs]
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=value) for value in values]
        from harness.cli.hydra_jobs import launch_jobs

        return launch_jobs(self._context, self._config, jobs)


@dataclass
class SweeperConfig(BasicSweeperConf):
    """Hydra config node of the sweeper."""

    _target_: str = "hydra_plugins.harness_launcher.HarnessSweeper"


class HarnessSweeper(BasicSweeper):
    """Hydra's own sweeper, for experiments whose `params` may say `size`, and for questions, each of which it
    joins with its control."""

    def sweep(self, arguments: list[str]) -> Any:
        """Launch the jobs of these overrides."""
        from harness.config.variants.question_sweep import with_control

        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        return super().sweep(with_control(arguments, self._parse_config(), loader))

    def _parse_config(self) -> list[str]:
        from harness.config.recipes.sizes import as_scale

        return [as_scale(line) for line in super()._parse_config()]


ConfigStore.instance().store(group="hydra/launcher", name="harness", node=LauncherConfig, provider="harness")
ConfigStore.instance().store(group="hydra/sweeper", name="harness", node=SweeperConfig, provider="harness")
