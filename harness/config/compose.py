"""From overrides to a resolved config: Hydra composes, the schema types, a mistake is one sentence."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from harness.config import hydra_errors
from harness.config.schema.run import Config, to_config
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import resolve_paths

FOLDER = Path(__file__).parents[2] / "conf"
SWEEP = ("-m", "--multirun")
COMPOSE_ONLY = (SWEEP[0], "hydra.launcher.compose_only=true")
Made = TypeVar("Made")


def config_path() -> str:
    """conf/ beside the harness, or the installed package of that name."""
    return str(FOLDER) if (FOLDER / "config.yaml").is_file() else "pkg://conf"


def to_resolved_config(node: DictConfig) -> Config:
    """The typed config of one run, without Hydra's own node.

    A rule that names no control is completed by the launcher, which knows the first variant.
    """
    with hydra_errors.as_user_errors():
        own = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        content = OmegaConf.to_container(own, resolve=True)
        assert isinstance(content, dict)
        rule = content["rule"]
        assert isinstance(rule, dict)
        rule["control"] = "" if OmegaConf.is_missing(node.rule, "control") else rule["control"]
        resolve_paths(content)
        return to_config(content)


def compose(overrides: Sequence[str]) -> Config:
    """The config of one run, outside a Hydra program (plans, tests, notebooks)."""
    register()
    overrides = [_named(override) for override in overrides]
    with hydra_errors.as_user_errors(), hydra.initialize_config_dir(str(FOLDER), version_base="1.3"):
        hydra_errors.check_overrides(overrides, groups())
        return to_resolved_config(hydra.compose("config", [*overrides]))


def run_hydra(arguments: Sequence[str], task: Callable[[Config], Any]) -> None:
    """Hand a command line to Hydra: `task` for a single run, the launcher for a sweep.

    Raises UserError where Hydra would print its own report, and whatever the launcher raised.
    The task is called after Hydra is done, since Hydra reports what a task raises in its own way.
    """
    asked, options = _read(arguments)
    if asked.cfg and asked.multirun:
        options = [each for each in options if each not in SWEEP]  # Hydra shows, or sweeps
        hydra_errors.check_cfg_option(asked.cfg, asked.overrides)
        if asked.cfg == "job":
            print(_shown(asked))
            return
    for config in _through_hydra([*options, *asked.overrides], to_resolved_config):
        task(config)


def sweep_configs(overrides: Sequence[str]) -> list[Config]:
    """The configs of a sweep in Hydra's order; nothing is launched. Raises UserError."""
    return _through_hydra([*COMPOSE_ONLY, *overrides], to_resolved_config)


def _shown(asked: argparse.Namespace) -> str:
    """The config of a sweep's first run, as Hydra's `--cfg job` shows that of a single one."""
    first, *_ = _through_hydra([*COMPOSE_ONLY, *asked.overrides], lambda node: node)
    part = OmegaConf.select(first, asked.package) if asked.package else first
    if part is None:
        known = did_you_mean(asked.package, map(str, first))
        raise UserError(f"--package {asked.package}: no such part of a config; {known}")
    with hydra_errors.as_user_errors():
        text = OmegaConf.to_yaml(part, resolve=asked.resolve) if OmegaConf.is_config(part) else str(part)
    return text.rstrip("\n")


def _read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """A command line, and its options: Hydra wants all overrides in one piece."""
    asked = get_args_parser().parse_intermixed_args([*arguments])
    return asked, [each for each in arguments if each not in asked.overrides]


def _through_hydra(arguments: Sequence[str], make: Callable[[DictConfig], Made]) -> list[Made]:
    """What Hydra gives to a program that it starts; nothing for a sweep that was launched. What Hydra itself
    writes of a sweep goes to a folder that does not last: the launcher keeps it once it may write."""
    register()
    handed: list[Made] = []
    wrong: list[UserError] = []

    def take(node: DictConfig) -> None:
        try:
            handed.append(make(node))
        except UserError as error:  # of which Hydra would make a report of its own
            wrong.append(error)

    main = hydra.main(version_base="1.3", config_path=config_path(), config_name="config")(take)
    with hydra_errors.as_user_errors(), tempfile.TemporaryDirectory(prefix="ab-harness-") as scratch:
        asked, options = _read([_named(argument) for argument in arguments])
        hydra_errors.check_overrides(asked.overrides, groups())
        with _command_line([*options, f"hydra.sweep.dir={scratch}", *asked.overrides]):
            main()
    if wrong:
        raise wrong[0]
    return handed


def _named(override: str) -> str:
    """`experiment=null` is the experiment of that name; to Hydra it would be none."""
    return "experiment='null'" if override == "experiment=null" else override


def register() -> None:
    """Make the schema known to Hydra (conf/config.yaml starts from it), and `${floordiv:a,b}`."""
    ConfigStore.instance().store(name="base_config", node=Config, provider="harness")
    OmegaConf.register_new_resolver("floordiv", lambda a, b: a // b, replace=True)


def groups() -> dict[str, list[str]]:
    """The groups of conf/ and their options, as they ship."""
    root = FOLDER if (FOLDER / "config.yaml").is_file() else resources.files("conf")
    return {
        folder.name: sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))
        for folder in root.iterdir()
        if folder.is_dir() and not folder.name.startswith("_")
    }


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and raises instead of reporting only if this variable is set. Of a searchpath
    that is not there it only warns, and then misses what should be in it."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=hydra.searchpath")
            yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
