"""Composition of overrides into a typed, resolved config by Hydra. A mistake raises one UserError."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from harness.config import hydra_errors
from harness.config.recipes.sizes import as_scale, check_recipe, learning_rate_of
from harness.config.schema.run import Config, field_type, to_config
from harness.config.value_checks import check_values
from harness.config.variants.option_files import CONF_FOLDER, option_files
from harness.config.variants.question_group import register_group
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import resolve_paths

MULTIRUN_FLAGS = ("-m", "--multirun")
COMPOSE_ONLY = (MULTIRUN_FLAGS[0], "hydra.launcher.compose_only=true")
RESOLVERS = {
    "floordiv": lambda a, b: a // b,
    "times": lambda a, b: a * b if isinstance(a * b, int) else float(f"{a * b:.12g}"),
    "least": min,
    "learning_rate": learning_rate_of,
}
"""Functions that a value in conf/ may call, such as `${floordiv:${seed},2}`."""
Result = TypeVar("Result")


class ComposedConfig(Protocol):
    """Composed config of a sweep's job (harness.config.compose_cache)."""

    def to_config(self) -> Config:
        """Return the typed config."""
        ...

    def to_node(self) -> DictConfig:
        """Return the node that Hydra composes."""
        ...


def to_resolved_config(node: DictConfig) -> Config:
    """Convert a composed node, without Hydra's own node, to the typed config of one run."""
    with hydra_errors.as_user_errors():
        config = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        content = OmegaConf.to_container(config, resolve=True)
        assert isinstance(content, dict)
        rule = content["rule"]
        assert isinstance(rule, dict)
        if OmegaConf.is_missing(node.rule, "control"):
            rule["control"] = ""  # the launcher sets it to the first variant
        resolve_paths(content)
        typed_config = to_config(content)
    check_values(typed_config)
    check_recipe(typed_config, CONF_FOLDER / "scale")
    return typed_config


def compose(overrides: Sequence[str]) -> Config:
    """Compose the config of one run outside a Hydra program (plans, tests, notebooks). Raises UserError."""
    register_schema()
    overrides = [_as_hydra_reads(override) for override in overrides]
    with hydra_errors.as_user_errors(), hydra.initialize_config_dir(str(CONF_FOLDER), version_base="1.3"):
        hydra_errors.check_overrides(overrides, config_groups())
        return to_resolved_config(hydra.compose("config", [*overrides]))


def run_hydra(arguments: Sequence[str], task: Callable[[Config], Any]) -> None:
    """Run a command line through Hydra: `task` for a single run, the launcher for a sweep.

    Raises UserError where Hydra would print its own report, and passes on what the launcher raises. `task`
    runs after Hydra has finished, because Hydra catches and prints exceptions of its tasks.
    """
    parsed, options = _parse_command_line(arguments)
    if parsed.multirun and (parsed.cfg or parsed.info or parsed.shell_completion):
        options = [option for option in options if option not in MULTIRUN_FLAGS]  # Hydra cannot do both
    if parsed.multirun and parsed.cfg:
        hydra_errors.check_cfg_option(parsed.cfg, parsed.overrides)
        if parsed.cfg == "job":
            print(_show_job_config(parsed))
            return
    for config in _compose_with_hydra([*options, *parsed.overrides], _typed):
        task(config)


def sweep_configs(overrides: Sequence[str]) -> list[Config]:
    """Compose the configs of a sweep, in Hydra's order, without launching it. Raises UserError."""
    return _compose_with_hydra([*COMPOSE_ONLY, *overrides], _typed)


def _show_job_config(arguments: argparse.Namespace) -> str:
    """Return the YAML of a sweep's first run, as Hydra's `--cfg job` prints it for a single run."""
    first, *_ = _compose_with_hydra([*COMPOSE_ONLY, *arguments.overrides], _as_node)
    part = OmegaConf.select(first, arguments.package) if arguments.package else first
    if part is None:
        suggestion = did_you_mean(arguments.package, map(str, first))
        raise UserError(f"--package {arguments.package}: the config has no such part; {suggestion}")
    with hydra_errors.as_user_errors():
        text = OmegaConf.to_yaml(part, resolve=arguments.resolve) if OmegaConf.is_config(part) else str(part)
    return text.rstrip("\n")


def _typed(config: DictConfig | ComposedConfig) -> Config:
    return to_resolved_config(config) if isinstance(config, DictConfig) else config.to_config()


def _as_node(config: DictConfig | ComposedConfig) -> DictConfig:
    return config if isinstance(config, DictConfig) else config.to_node()


def _parse_command_line(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the parsed command line and its options. Hydra needs the overrides in one contiguous list."""
    parsed = get_args_parser().parse_intermixed_args([*arguments])
    return parsed, [argument for argument in arguments if argument not in parsed.overrides]


def _compose_with_hydra(
    arguments: Sequence[str], make: Callable[[DictConfig | ComposedConfig], Result]
) -> list[Result]:
    """Return `make` of each config that Hydra passes to its task; an empty list if it launched a sweep.

    Hydra's own sweep files go to a temporary folder; the launcher copies them once it may write.
    """
    register_schema()
    results: list[Result] = []
    errors: list[UserError] = []

    def take(node: DictConfig | ComposedConfig) -> None:
        try:
            results.append(make(node))
        except UserError as error:  # Hydra would catch it and print its own report
            errors.append(error)

    main = hydra.main(version_base="1.3", config_path=str(CONF_FOLDER), config_name="config")(take)
    with hydra_errors.as_user_errors(), tempfile.TemporaryDirectory(prefix="ab-harness-") as scratch:
        parsed, options = _parse_command_line([_as_hydra_reads(argument) for argument in arguments])
        hydra_errors.check_overrides(parsed.overrides, config_groups())
        words = [f"hydra.sweep.dir={scratch}", *parsed.overrides, *options]
        with _command_line(words), _without_mode_lookup() if parsed.multirun else nullcontext():
            main()
    if errors:
        raise errors[0]
    return results


def _as_hydra_reads(override: str) -> str:
    """Quote a text that Hydra would read as a number, such as `experiment_name=2026_11_21`, and
    `experiment=null`, which names the experiment `null`; unquoted, Hydra would drop the group. A `size` is a
    scale."""
    override = as_scale(override)
    key, _, text = override.partition("=")
    if override == "experiment=null":
        return "experiment='null'"
    if field_type(key.lstrip("+")) not in (str, str | None) or {*text} & {*"'\"[{("}:
        return override
    items = [f"'{item}'" if hydra_errors.is_number(item) else item for item in text.split(",")]
    return f"{key}={','.join(items)}"


def register_schema() -> None:
    """Register with Hydra the schema, which is the base of conf/config.yaml, the resolvers of conf/, and the
    questions."""
    store = ConfigStore.instance()
    if getattr(store.repo.get("base_config.yaml"), "provider", "") != "harness":  # a sixth of a composition
        store.store(name="base_config", node=Config, provider="harness")
    for name, function in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
    register_group()


def config_groups() -> dict[str, list[str]]:
    """Return the groups that ship with the harness, each with its options."""
    return {group: sorted(options) for group, options in option_files([CONF_FOLDER]).items()}


@contextmanager
def _without_mode_lookup() -> Iterator[None]:
    """Keep Hydra from composing the whole config to find `hydra.mode`, which `-m` overrides in any case."""
    get_mode = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None
    try:
        yield
    finally:
        Hydra.get_mode = get_mode


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Set sys.argv for Hydra; turn its printed errors and its warning of a missing searchpath into errors."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=hydra.searchpath")
            yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
