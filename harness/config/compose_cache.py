"""Cache of compositions, so that a sweep composes each combination of choices once.

Hydra composes every job from scratch, once to validate and once to launch it, and takes 0.1 s each time.
Values are set after the choices of groups. So jobs that make the same choices and set the same leaves differ
in the values of these leaves, and of the leaves that are computed from them by an interpolation; of a further
job, only these are computed. Whatever could change more than its own leaf (`+key=`, `~key`, a list, an
interpolation, ...) counts as a choice.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from harness.config.compose import config_groups, to_resolved_config
from harness.config.hydra_errors import check_overrides
from harness.config.parse_overrides import parse_overrides
from harness.config.schema.run import Config
from harness.config.value_checks import check_values
from harness.core.hashing import flatten, is_covered_by
from harness.core.paths import resolve_path

Load = Callable[[DictConfig, list[str]], DictConfig]
Path = tuple[Any, ...]
"""Keys from the root of a config to one of its nodes."""
SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class ComposedJob:
    """Job of a sweep: a template that other jobs share, and the values of its own leaves."""

    template: JobTemplate
    values: Sequence[Override]

    def to_config(self) -> Config:
        """Return the typed config, which the caller may change. Raises UserError."""
        return self.template.to_config(self.values)

    def to_node(self) -> DictConfig:
        """Return what Hydra composes for the job, without Hydra's own node."""
        self.template.set_values(self.values)
        return copy.deepcopy(self.template.node)


class JobTemplate:
    """Composition of all jobs that make the same choices and set the same leaves."""

    def __init__(self, node: DictConfig, values: Sequence[Override]) -> None:
        self.node = node
        self._config: Config | None = None
        self._leaves: list[Path] = [(*override.key_or_group.split("."),) for override in values]

    def set_values(self, values: Sequence[Override]) -> None:
        """Set the leaves to the values of a job, all of them, so that nothing of another job is left."""
        ConfigLoaderImpl._apply_overrides_to_config([*values], self.node)

    def to_config(self, values: Sequence[Override]) -> Config:
        """Return the typed config of a job. Raises UserError."""
        self.set_values(values)
        if self._config is None:
            self._config = to_resolved_config(self.node)
            self._leaves += [*_interpolations(OmegaConf.to_container(self.node, resolve=False))]
            return copy.deepcopy(self._config)
        config = copy.deepcopy(self._config)
        if not all(self._copy_leaf(path, config) for path in self._leaves):
            return to_resolved_config(self.node)
        check_values(config)
        return config

    def _copy_leaf(self, path: Path, config: Config) -> bool:
        """Set a leaf of a typed config to its value here. Return False if it is a container or in a list."""
        try:
            value = functools.reduce(lambda node, key: node[key], path, self.node)
        except Exception:  # the whole conversion explains it
            return False
        if OmegaConf.is_config(value) or any(isinstance(key, int) for key in path):
            return False
        parent = functools.reduce(_child, path[:-1], config)
        value = resolve_path(".".join(map(str, path)), value)
        if is_dataclass(parent):
            setattr(parent, path[-1], value)
        else:
            parent[path[-1]] = value
        return True


class SweepComposer:
    """Composer of a sweep's jobs. `compose` is Hydra's own function."""

    def __init__(self, compose: Load) -> None:
        self._compose = compose
        self._templates: dict[tuple[str, ...], JobTemplate] = {}
        self._last_line = time.monotonic()

    def load(self, master_config: DictConfig, sweep_overrides: list[str]) -> ComposedJob:
        """Compose a job, and check the type of each of its values. Raises Hydra's errors and UserError."""
        choices, values = _divide(parse_overrides(sweep_overrides))
        keys = (*(str(choice.input_line) for choice in choices), *(value.key_or_group for value in values))
        if keys not in self._templates:
            self._templates[keys] = JobTemplate(self._compose_choices(master_config, choices), values)
            self._show_progress()
        self._templates[keys].set_values(values)
        return ComposedJob(self._templates[keys], values)

    def _compose_choices(self, master_config: DictConfig, choices: Sequence[Override]) -> DictConfig:
        lines = [str(override.input_line) for override in choices]
        check_overrides(lines, config_groups())  # also those of an experiment's file
        config = self._compose(master_config, lines)
        with open_dict(config):
            del config["hydra"]  # most of its size
        return config

    def _show_progress(self) -> None:
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"composing: {len(self._templates):,} combinations of choices so far", file=sys.stderr)


def cache_compositions(loader: ConfigLoader) -> None:
    """Make `loader.load_sweep_config` compose each combination of choices once, and return a ComposedJob."""
    vars(loader)["load_sweep_config"] = SweepComposer(loader.load_sweep_config).load


def _divide(overrides: Sequence[Override]) -> tuple[list[Override], list[Override]]:
    """Return the choices, in order, and the values: overrides that set one leaf, which no choice touches."""
    setters = [override for override in overrides if _sets_one_leaf(override)]
    changes = [
        override for override in overrides if not (_sets_one_leaf(override) or _names_option(override))
    ]
    keys = [override.key_or_group for override in changes]
    values = [override for override in setters if not is_covered_by(override.key_or_group, keys)]
    return [override for override in overrides if override not in values], values


def _names_option(override: Override) -> bool:
    """Return whether an override chooses an option of a group, which Hydra does before it sets a value."""
    key, is_name = override.key_or_group, isinstance(override.value(), str)
    return is_name and _is_plain(override) and "." not in key and key not in _leaf_keys()


def _sets_one_leaf(override: Override) -> bool:
    """Return whether an override sets a leaf of the schema to a value of its own."""
    if not _is_plain(override) or override.package is not None or override.key_or_group not in _leaf_keys():
        return False
    value = override.value()
    is_text = isinstance(value, str) and "${" not in value and value != "???"
    return is_text or value is None or isinstance(value, bool | int | float)


def _is_plain(override: Override) -> bool:
    return not (override.is_add() or override.is_delete() or override.is_force_add())


@functools.cache
def _leaf_keys() -> frozenset[str]:
    return frozenset(flatten(Config()))


def _interpolations(content: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each text with an interpolation in a plain container."""
    if isinstance(content, dict | list):
        for key, child in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _interpolations(child, (*path, key))
    elif isinstance(content, str) and "${" in content:
        yield path


def _child(node: Any, key: Any) -> Any:
    return getattr(node, key) if is_dataclass(node) else node[key]
