"""Cache of compositions, so that a sweep composes each combination of group choices once.

Hydra composes every job from scratch, once to validate and once to launch it. A composition takes 0.1 s,
so continuing a sweep of 27 runs would take seven seconds. Value overrides apply after group choices, so
jobs that differ only in values share one composition.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from harness.config.compose import config_groups
from harness.config.hydra_errors import check_overrides
from harness.config.schema.run import Config
from harness.core.hashing import flatten

Load = Callable[[DictConfig, list[str]], DictConfig]


def cache_compositions(loader: ConfigLoader) -> None:
    """Make `loader.load_sweep_config` compose each combination of group choices once.

    The returned configs lack Hydra's own node, which dominates their size and copy time. Do not change
    them: equal jobs share one object.
    """
    compose: Load = loader.load_sweep_config
    compositions: dict[tuple[str, ...], DictConfig] = {}
    jobs: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        job = tuple(sweep_overrides)
        if job not in jobs:
            overrides = OverridesParser.create().parse_overrides(sweep_overrides)
            values = [override for override in overrides if _sets_one_leaf(override)]
            groups = [override for override in overrides if not _sets_one_leaf(override)]
            choices = tuple(str(override.input_line) for override in groups)
            if choices not in compositions:
                check_overrides(choices, config_groups())  # also those of an experiment's file
                config = compositions[choices] = compose(master_config, [*choices])
                with open_dict(config):
                    del config["hydra"]
            config = jobs[job] = copy.deepcopy(compositions[choices])
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return jobs[job]

    vars(loader)["load_sweep_config"] = load_sweep_config


def _sets_one_leaf(override: Override) -> bool:
    """Return whether the override only sets one leaf of the schema."""
    plain = not (override.is_add() or override.is_delete() or override.is_force_add())
    return plain and override.package is None and override.key_or_group in _leaf_keys()


@functools.cache
def _leaf_keys() -> frozenset[str]:
    return frozenset(flatten(Config()))
