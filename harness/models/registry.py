"""Registry of mechanisms: attention, feed-forward and conditioning by name.

    @register_attention("mine", Options, model_flops=..., executed_flops=..., cache_bytes=...)
    class Mine(nnx.Module):
        def __init__(self, context: LayerContext, options: Options): ...
        def __call__(self, x_BTD, rotary): ...

A feed-forward layer takes only x [B, T, D] and returns y, or (y, RouterStats) if it has experts.

A config names a mechanism and never imports it. List the module that registers your own in `imports`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx
from jax import Array

from harness import moved
from harness.config.schema import run
from harness.config.users_modules import find_in_current_folder
from harness.core.errors import UserError, did_you_mean
from harness.models.kernels import KernelChoice
from harness.models.mechanism import LayerContext, MatmulFlops, RouterStats

Module = TypeVar("Module", bound=Callable[..., nnx.Module])


@dataclass(frozen=True)
class Mechanism:
    """Registered mechanism. All FLOPs are per token, for the forward pass through one layer."""

    name: str
    options: type
    module: Any
    model_flops: Callable[[LayerContext, Any], float]
    """FLOPs that the mathematics needs: masked keys and unused experts are not counted."""
    executed_flops: Callable[[LayerContext, Any], MatmulFlops]
    """FLOPs of the matrix products as they are written."""
    cache_bytes: Callable[[LayerContext, Any, float], float]
    """Bytes that decoding caches in one layer for a sequence of full length, given the bytes per value."""
    period: Callable[[Any], int] = lambda options: 1
    """Number of layers after which the mechanism's pattern repeats; a scan runs over whole periods."""
    inactive_parameters: Callable[[LayerContext, Any], int] = lambda context, options: 0
    """Number of parameters of one layer that a token does not use."""
    update_after_step: Callable[[Any, Mapping[str, Array], RouterStats], dict[str, Array]] | None = None
    """Function from a layer's parameters by name and the step's statistics to new values of the parameters
    that change without a gradient, applied after the optimizer step."""
    supports_sequence_parallel: Callable[[LayerContext, Any], bool] = lambda context, options: False
    """True if the module can work on one shard of a sequence (`rotary.sequence_shards`,
    `parallel.sharding.sequence_parallel`). If not, every device of the axis `context` gets the full sequence,
    and only its shard of the output is kept."""
    kernel: Callable[[LayerContext, Any], KernelChoice | None] = lambda context, options: None
    """Kernel of one layer; None if libraries have none for such a mechanism. Raises UserError if the config
    asks for one that lacks something."""


@dataclass(frozen=True)
class ConfiguredModule:
    """A mechanism with validated options: the meaning of a config's `{name, options}` node."""

    mechanism: Mechanism
    options: Any

    @property
    def period(self) -> int:
        """Number of layers after which the pattern repeats."""
        return self.mechanism.period(self.options)

    def build(self, context: LayerContext) -> Any:
        """Build the layer's module. Parameters are declared, not initialised."""
        return self.mechanism.module(context, self.options)

    def model_flops(self, context: LayerContext) -> float:
        """Return the forward FLOPs per token that the mathematics needs."""
        return self.mechanism.model_flops(context, self.options)

    def executed_flops(self, context: LayerContext) -> MatmulFlops:
        """Return the executed FLOPs, summed over the devices that share a sequence: a mechanism without
        support for sequence parallelism is executed on each of them."""
        replicas = 1 if self.supports_sequence_parallel(context) else context.sequence_shards
        return self.unreplicated_flops(context) * replicas

    def unreplicated_flops(self, context: LayerContext) -> MatmulFlops:
        """Return the executed FLOPs, counting replicated work once."""
        return self.mechanism.executed_flops(context, self.options)

    def supports_sequence_parallel(self, context: LayerContext) -> bool:
        """Return whether the module can work on one shard of a sequence."""
        return self.mechanism.supports_sequence_parallel(context, self.options)

    def kernel(self, context: LayerContext) -> KernelChoice | None:
        """Return the kernel of one layer; None if libraries have none for such a mechanism."""
        return self.mechanism.kernel(context, self.options)

    def cache_bytes(self, context: LayerContext, bytes_per_value: float) -> float:
        """Return the bytes that decoding caches in one layer for a sequence of full length."""
        return self.mechanism.cache_bytes(context, self.options, bytes_per_value)

    def inactive_parameters(self, context: LayerContext) -> int:
        """Return the number of parameters of one layer that a token does not use."""
        return self.mechanism.inactive_parameters(context, self.options)

    def update_after_step(self, params: Mapping[str, Array], signals: RouterStats) -> dict[str, Array]:
        """Return those of the layer's parameters, by name, that change after a step."""
        after_step = self.mechanism.update_after_step
        return {} if after_step is None else after_step(self.options, params, signals)


_REGISTERED: dict[str, dict[str, Mechanism]] = {"attention": {}, "feedforward": {}, "conditioning": {}}


def register_mechanism(kind: str, name: str, options: type, **fields: Any) -> Callable[[Module], Module]:
    """Return the decorator that registers a module, or a function that builds one, under `name`.

    `options` is its frozen dataclass; `fields` are those of Mechanism from `model_flops` on. The decorator
    raises UserError if another module has the name.
    """
    for name_given in tuple(fields):
        fields[moved.current_name(name_given)] = fields.pop(name_given)

    def register(module: Module) -> Module:
        existing = _REGISTERED[kind].get(name)
        if existing and existing.module.__qualname__ != module.__qualname__:
            raise UserError(
                f"{kind} '{name}' is registered by both {existing.module} and {module}. Rename one."
            )
        _REGISTERED[kind][name] = Mechanism(name, options, module, **fields)
        return module

    return register


register_attention = functools.partial(register_mechanism, "attention")
_NO_CACHE: dict[str, Any] = {"cache_bytes": lambda context, options, bytes_per_value: 0.0}
register_feedforward = functools.partial(register_mechanism, "feedforward", **_NO_CACHE)
register_conditioning = functools.partial(register_mechanism, "conditioning", **_NO_CACHE)


def lookup(kind: str, node: run.ModuleConfig, key: str | None = None) -> ConfiguredModule:
    """Return the mechanism that a config node names, with its options. Raises UserError if it is not
    registered or an option is invalid.

    `key` is the path of the node in the config: `model.<kind>`, or inside another mechanism's options.
    """
    key = key or f"model.{kind}"
    mechanism = _REGISTERED[kind].get(node.name)
    if mechanism is None:
        raise UserError(
            f"{key}.name={node.name} is not registered: {did_you_mean(node.name, _REGISTERED[kind])}"
            " (List a module of your own in `imports`.)"
        )
    options = _validate_options(kind, mechanism.options, dict(node.options), f"{key}.options")
    return ConfiguredModule(mechanism, options)


def _validate_options(kind: str, options: type, nodes: dict[str, Any], key: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(options)}
    types = typing.get_type_hints(options)
    values = {}
    for name, value in nodes.items():
        if name not in fields:
            raise UserError(f"{key}.{name} does not exist: {did_you_mean(name, fields)}")
        if types[name] == tuple[ConfiguredModule, ...]:
            value = _lookup_list(kind, value, f"{key}.{name}")
        elif not _has_type(value, types[name]):
            raise UserError(
                f"{key}.{name}={value!r} is of type {type(value).__name__}. Give a value of type"
                f" {_type_names(types[name])}."
            )
        values[name] = value
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in nodes]:
        name = missing[0]
        raise UserError(f"{key}.{name} is missing. Give a value of type {_type_names(types[name])}.")
    return options(**values)


def _lookup_list(kind: str, nodes: Any, key: str) -> tuple[ConfiguredModule, ...]:
    """Return the mechanisms of a list of `{name, options}` nodes inside another mechanism's options."""
    if not isinstance(nodes, list | tuple) or not nodes:
        raise UserError(f"{key}={nodes!r} must be a list of at least one {{name, options}}.")
    return tuple(_lookup_node(kind, node, f"{key}[{index}]") for index, node in enumerate(nodes))


def _lookup_node(kind: str, node: Any, key: str) -> ConfiguredModule:
    if not isinstance(node, Mapping) or "name" not in node or not node.keys() <= {"name", "options"}:
        raise UserError(f"{key}={node!r} must have the form {{name: NAME, options: {{...}}}}.")
    options = node.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"{key}.options={options!r} must be a mapping {{KEY: VALUE}}.")
    options = {str(name): value for name, value in options.items()}
    return lookup(kind, run.ModuleConfig(str(node["name"]), options), key)


def _type_names(expected: Any) -> str:
    if expected == tuple[ConfiguredModule, ...]:
        return "list"
    accepted = typing.get_args(expected) or (expected,)
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in accepted)


def _has_type(value: Any, expected: Any) -> bool:
    """Return whether a value has exactly an expected type. An int passes for a float, True not for an int."""
    accepted = typing.get_args(expected) or (expected,)
    return type(value) in accepted or (type(value) is int and float in accepted)


def import_modules(config: run.Config) -> None:
    """Import the modules listed in `config.imports`. Raises UserError for one that fails."""
    find_in_current_folder(config.imports)
    for name in config.imports:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"imports: '{name}' cannot be imported ({type(error).__name__}: {error})"
            ) from error


__getattr__ = moved.forward(__name__)  # names of version 0.1
