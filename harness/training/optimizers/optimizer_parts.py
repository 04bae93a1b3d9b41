"""Parts of the parameters, each with its optimizer: that of the run, or one of `optimizer.groups`."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from harness.config.schema.run import ModuleConfig, OptimizerConfig, OptimizerGroupConfig
from harness.config.socket_registry import Configured
from harness.core.errors import UserError, did_you_mean
from harness.training.optimizers import adamw, muon, published  # noqa: F401
from harness.training.optimizers.optimizer_registry import OPTIMIZERS, OptimizerEntry
from harness.training.optimizers.parameter_group import ParameterGroup

FLAT_KEYS = ("b1", "b2", "epsilon", "momentum", "ns_steps")
"""Keys of the node `optimizer` that are options of some optimizers."""
KINDS = ("vectors", "matrices")
"""Words of `match` that are no path: gains and other vectors, and hidden matrices."""


@dataclass(frozen=True)
class OptimizerPart:
    """Parameters with one optimizer and its settings."""

    name: str
    """Name in the state."""
    key: str
    """Config node of the settings: `optimizer` or `optimizer.groups.0`."""
    parameters: ParameterGroup
    choice: Configured[OptimizerEntry]
    options_key: str
    """Config node of the options."""
    rate: float = 1.0
    """Factor of the run's learning rate."""
    decay: float | None = None
    """Weight decay; None: that of the run."""


def split_parameters(
    config: OptimizerConfig,
    parameters: ParameterGroup,
    canonical_paths: Mapping[str, Collection[str]],
    *,
    has_base_width: bool,
) -> tuple[OptimizerPart, ...]:
    """Return the parts of the trainable parameters, each with its optimizer; the first group that matches
    counts. `canonical_paths`: those that each stored path holds, which groups match; `has_base_width`: True
    if learning rates are carried across widths. Raises UserError for a bad choice."""
    parts, paths = [], set(parameters.specs)
    for index, node in enumerate(config.groups):
        key = f"optimizer.groups.{index}"
        group = paths & _matched_paths(node.match, f"{key}.match", parameters, canonical_paths)
        paths -= group
        if group:
            parts.append(_group_part(config, node, key, str(index), parameters.only(group)))
    if paths:
        node = ModuleConfig(config.name, config.options)
        parts.append(_part(config, node, "rest", "optimizer", parameters.only(paths)))
    for part in parts:
        _check_width_rule(part, has_base_width)
    return tuple(parts)


def _group_part(
    config: OptimizerConfig, node: OptimizerGroupConfig, key: str, name: str, parameters: ParameterGroup
) -> OptimizerPart:
    if node.name is None and node.options:
        raise UserError(f"{key}.options needs {key}.name: the optimizer whose options they are.")
    if node.name is None:
        part = _part(config, ModuleConfig(config.name, config.options), name, "optimizer", parameters)
    else:
        part = _part(config, ModuleConfig(node.name, node.options), name, key, parameters)
    rate = 1.0 if node.learning_rate is None else node.learning_rate
    return replace(part, key=key, rate=rate, decay=node.weight_decay)


def _part(
    config: OptimizerConfig, node: ModuleConfig, name: str, key: str, parameters: ParameterGroup
) -> OptimizerPart:
    """Look an optimizer up. Where its options are flat keys of the config, those are their defaults."""
    entry = OPTIMIZERS.entries.get(node.name)
    flat = {field: getattr(config, field) for field in (entry.flat_keys if entry else ())}
    if key == "optimizer":
        _check_flat_keys(config, flat)
    choice = OPTIMIZERS.lookup(ModuleConfig(node.name, flat | node.options), key)
    options_key = "optimizer" if flat and key == "optimizer" else f"{key}.options"
    return OptimizerPart(name, key, parameters, choice, options_key)


def _check_flat_keys(config: OptimizerConfig, flat: Mapping[str, float]) -> None:
    """Raise UserError for a key that the optimizer of the run does not read, or that is given twice."""
    for name in flat.keys() & config.options.keys():
        raise UserError(
            f"optimizer.options.{name} is the key optimizer.{name} for optimizer.name={config.name}."
            f" Set optimizer.{name}={config.options[name]} instead."
        )
    defaults = {field.name: field.default for field in dataclasses.fields(OptimizerConfig)}
    for name in FLAT_KEYS:
        value = getattr(config, name)
        if not flat and value != defaults[name]:
            raise UserError(
                f"optimizer.{name}={value} is no option of optimizer.name={config.name}, whose options are in"
                f" optimizer.options. Leave optimizer.{name} at {defaults[name]}."
            )


def _matched_paths(
    match: str, key: str, parameters: ParameterGroup, canonical_paths: Mapping[str, Collection[str]]
) -> set[str]:
    """Return the stored paths that a group's `match` names. Raises UserError if there is none, or if it
    names some layers of a stack alone."""
    specs = parameters.specs
    if match == "vectors":
        return {path for path, spec in specs.items() if not spec.is_matrix}
    if match == "matrices":
        return set(parameters.matrices)
    hits = {path: [fnmatch.fnmatchcase(p, match) for p in canonical_paths[path]] for path in specs}
    paths = {path for path, hit in hits.items() if all(hit)}
    if cut := [path for path, hit in hits.items() if any(hit) and not all(hit)]:
        raise UserError(
            f"{key}={match} takes some layers of {cut[0]} alone, which is one parameter in a scan. Set"
            " compute.scan_layers=false."
        )
    if not paths:
        names = [name for path in specs for name in canonical_paths[path]]
        raise UserError(
            f"{key}={match} matches no trainable parameter: {did_you_mean(match, [*KINDS, *names])}"
        )
    return paths


def _check_width_rule(part: OptimizerPart, has_base_width: bool) -> None:
    for choice in part.choice.nested():
        if has_base_width and choice.entry.rate_rule is None:
            raise UserError(
                f"{part.key}.name={choice.name} has no known rule for learning rates across widths, and"
                " model.base_width is set. Set model.base_width=null, and give each size its own rate."
            )
