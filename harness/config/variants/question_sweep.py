"""Sweep of a question: its control beside it, the modules of both, and a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from harness.config.variants.question_files import GROUP
from harness.core.errors import UserError

CONTROL = "control"
"""Question that changes nothing: the control of every question that names no other in `rule.control`."""


def with_control(arguments: Sequence[str], params: Sequence[str], loader: ConfigLoader) -> list[str]:
    """Return the overrides of a sweep with the control of its questions, with the modules of all of them, and
    with `experiment_name=question_NAME` unless they give a name. Without `question=` they stay as they are.

    Raises UserError for questions with different controls, and for variants beside them.
    """
    parser = OverridesParser.create(config_loader=loader)  # which knows what a glob stands for
    parsed = parser.parse_overrides([*params, *arguments])
    overrides = {override.key_or_group: override for override in parsed}
    names = _asked_names(overrides)
    nodes = {name: node for name in names if (node := _load(loader, name)) is not None}
    if not names or len(nodes) < len(names):
        return [*arguments]  # composing names the nearest question
    control = _shared_control(nodes)
    nodes[control] = _load(loader, control) or DictConfig({})
    name = [] if "experiment_name" in overrides else [f"experiment_name={GROUP}_{'_'.join(names)}"]
    modules = dict.fromkeys([*_values(overrides.get("imports")), *_modules(nodes.values())])
    return [
        *arguments,
        f"{GROUP}={','.join(dict.fromkeys([control, *names]))}",
        f"rule.control={control}",
        f"imports=[{','.join(modules)}]",
        *name,
    ]


def _asked_names(overrides: Mapping[str, Override]) -> list[str]:
    """Return the questions without the control that changes nothing. Raises UserError if variants stand
    beside them, and for an experiment that lacks them."""
    choices = _values(overrides.get(GROUP))
    if not choices and _values(overrides.get("experiment")) == [GROUP]:
        raise UserError(f"experiment={GROUP}: add {GROUP}=NAME; `harness questions` lists the names.")
    names = [name for name in choices if name != CONTROL]
    if names and "variant" in overrides and overrides["variant"].is_sweep_override():
        raise UserError(
            f"{GROUP}={','.join(names)}: variant has several values too, but each question is a variant "
            "beside its control. Give variant one value, which both then start from."
        )
    return names


def _values(override: Override | None) -> list[str]:
    """Return the values of an override, of which one may be a list."""
    if override is None:
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    value = override.value()
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def _shared_control(nodes: Mapping[str, DictConfig]) -> str:
    controls = {OmegaConf.select(node, "rule.control") or CONTROL for node in nodes.values()}
    if len(controls) > 1:
        raise UserError(
            f"{GROUP}={','.join(nodes)}: their controls differ ({', '.join(sorted(controls))}). Start a "
            "command for each control."
        )
    return controls.pop()


def _modules(nodes: Iterable[DictConfig]) -> list[str]:
    return [module for node in nodes for module in node.get("imports") or ()]


def _load(loader: ConfigLoader, name: str) -> DictConfig | None:
    """Return what the file of a question says, without its defaults; None if there is no such question."""
    for source in loader.get_sources():
        if source.is_config(f"{GROUP}/{name}"):
            config = source.load_config(f"{GROUP}/{name}").config
            assert isinstance(config, DictConfig)
            return config
    return None
