"""Mechanisms by name: how an attention or a feed-forward variant makes itself known.

    @attention("mine", Options, model_flops=..., executed_flops=..., cache_bytes=...)
    class Mine(nnx.Module):
        def __init__(self, context: Site, options: Options): ...
        def __call__(self, x_BTD, rotary): ...

A feed-forward takes x [B, T, D] alone and answers y, or (y, Signals) where it has more to say.

A config names a mechanism and never imports it; a module that registers one is listed in `imports`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx
from jax import Array

from harness.config.schema import run
from harness.core.errors import UserError, did_you_mean
from harness.models.mechanism import LayerContext, MatmulFlops, RouterStats

Module = TypeVar("Module", bound=Callable[..., nnx.Module])


@dataclass(frozen=True)
class Mechanism:
    """One registered mechanism; the FLOPs are of one token's forward pass in one layer."""

    name: str
    options: type
    module: Any
    model_flops: Callable[[LayerContext, Any], float]
    """FLOPs that the mathematics needs: causality, window and experts used are taken off."""
    executed_flops: Callable[[LayerContext, Any], MatmulFlops]
    """FLOPs of the products as they are written."""
    cache_bytes: Callable[[LayerContext, Any, float], float]
    """Bytes that decoding keeps in one layer for a sequence of the context's length, by bytes a value."""
    period: Callable[[Any], int]
    """After how many layers the pattern repeats; a scan runs over whole repeats."""
    inactive_parameters: Callable[[LayerContext, Any], int]
    """Parameters of one layer that a token does not pass through."""
    update_after_step: Callable[[Any, Mapping[str, Array], RouterStats], dict[str, Array]] | None
    """Parameters of one layer that change without a gradient: their values after an optimizer step, from
    all its own by name and the step's signals."""
    supports_sequence_parallel: Callable[[LayerContext, Any], bool]
    """Whether it may be given a part of a sequence (`rotary.parts`,
    `parallel.sharding.sequence_parallel`). One that may not
    gets all of it on each device of the axis `context`, and its part of the answer is kept."""


@dataclass(frozen=True)
class ConfiguredModule:
    """A mechanism with validated options: what a config's `{name, options}` node means."""

    mechanism: Mechanism
    options: Any

    @property
    def period(self) -> int:
        return self.mechanism.period(self.options)

    def build(self, context: LayerContext) -> Any:
        return self.mechanism.module(context, self.options)

    def model_flops(self, context: LayerContext) -> float:
        return self.mechanism.model_flops(context, self.options)

    def executed_flops(self, context: LayerContext) -> MatmulFlops:
        """Of all devices that share a sequence: what does not split is multiplied on each."""
        return self.unreplicated_flops(context) * (
            1 if self.supports_sequence_parallel(context) else context.sequence_shards
        )

    def unreplicated_flops(self, context: LayerContext) -> MatmulFlops:
        return self.mechanism.executed_flops(context, self.options)

    def supports_sequence_parallel(self, context: LayerContext) -> bool:
        return self.mechanism.supports_sequence_parallel(context, self.options)

    def cache_bytes(self, context: LayerContext, bytes_per_value: float) -> float:
        return self.mechanism.cache_bytes(context, self.options, bytes_per_value)

    def inactive_parameters(self, context: LayerContext) -> int:
        return self.mechanism.inactive_parameters(context, self.options)

    def update_after_step(self, own: Mapping[str, Array], signals: RouterStats) -> dict[str, Array]:
        """Those of a layer's parameters that change after a step, from all of them by name."""
        after_step = self.mechanism.update_after_step
        return {} if after_step is None else after_step(self.options, own, signals)


_REGISTERED: dict[str, dict[str, Mechanism]] = {"attention": {}, "feedforward": {}, "conditioning": {}}


def register_mechanism(
    kind: str,
    name: str,
    options: type,
    *,
    model_flops: Callable[[LayerContext, Any], float],
    executed_flops: Callable[[LayerContext, Any], MatmulFlops],
    cache_bytes: Callable[[LayerContext, Any, float], float],
    period: Callable[[Any], int] = lambda options: 1,
    inactive_parameters: Callable[[LayerContext, Any], int] = lambda context, options: 0,
    update_after_step: Callable[[Any, Mapping[str, Array], RouterStats], dict[str, Array]] | None = None,
    supports_sequence_parallel: Callable[[LayerContext, Any], bool] = lambda context, options: False,
) -> Callable[[Module], Module]:
    """Registers the decorated module, or function that makes one, under `name`; `options` is its frozen
    dataclass.

    Raises UserError if another module has the name.
    """

    def register(module: Module) -> Module:
        known = _REGISTERED[kind].get(name)
        if known and known.module.__qualname__ != module.__qualname__:
            raise UserError(f"{kind} '{name}' is registered by both {known.module} and {module}: rename one.")
        _REGISTERED[kind][name] = Mechanism(
            name,
            options,
            module,
            model_flops,
            executed_flops,
            cache_bytes,
            period,
            inactive_parameters,
            update_after_step,
            supports_sequence_parallel,
        )
        return module

    return register


register_attention = functools.partial(register_mechanism, "attention")
register_feedforward = functools.partial(
    register_mechanism, "feedforward", cache_bytes=lambda context, options, bytes_per_value: 0.0
)
register_conditioning = functools.partial(
    register_mechanism, "conditioning", cache_bytes=lambda context, options, bytes_per_value: 0.0
)


def lookup(kind: str, node: run.ModuleConfig, key: str | None = None) -> ConfiguredModule:
    """The mechanism that a node names, with its options; UserError if there is none such.

    `key` is where the node stands in the config: `model.<kind>`, or inside another's options.
    """
    key = key or f"model.{kind}"
    found = _REGISTERED[kind].get(node.name)
    if found is None:
        raise UserError(
            f"{key}.name={node.name} is not registered: {did_you_mean(node.name, _REGISTERED[kind])}"
            " (a module of your own is to be listed in `imports`)"
        )
    return ConfiguredModule(
        found, _validate_options(kind, found.options, dict(node.options), f"{key}.options")
    )


def _validate_options(kind: str, options: type, given: dict[str, Any], key: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(options)}
    types = typing.get_type_hints(options)
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise UserError(f"{key}.{name} does not exist: {did_you_mean(name, fields)}")
        if types[name] == tuple[ConfiguredModule, ...]:
            value = _lookup_list(kind, value, f"{key}.{name}")
        elif not _has_type(value, types[name]):
            raise UserError(
                f"{key}.{name}={value!r} is of type {type(value).__name__}: give one of type"
                f" {_type_names(types[name])}."
            )
        values[name] = value
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if absent := [name for name in required if name not in given]:
        raise UserError(
            f"{key}.{absent[0]} is missing: give a value of type {_type_names(types[absent[0]])}."
        )
    return options(**values)


def _lookup_list(kind: str, nodes: Any, key: str) -> tuple[ConfiguredModule, ...]:
    """A list of `{name, options}` inside a mechanism's options."""
    if not isinstance(nodes, list | tuple) or not nodes:
        raise UserError(f"{key}={nodes!r} names no mechanism: give a list of one or more {{name, options}}.")
    return tuple(
        lookup(kind, _module_config(node, f"{key}[{index}]"), f"{key}[{index}]")
        for index, node in enumerate(nodes)
    )


def _module_config(node: Any, key: str) -> run.ModuleConfig:
    if not isinstance(node, Mapping) or "name" not in node or not node.keys() <= {"name", "options"}:
        raise UserError(f"{key}={node!r} is no mechanism: write {{name: NAME, options: {{...}}}}.")
    options = node.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"{key}.options={options!r} is no mapping: write {{KEY: VALUE}}.")
    return run.ModuleConfig(str(node["name"]), {str(name): value for name, value in options.items()})


def _type_names(expected: Any) -> str:
    if expected == tuple[ConfiguredModule, ...]:
        return "list"
    accepted = typing.get_args(expected) or (expected,)
    return " or ".join("null" if each is type(None) else each.__name__ for each in accepted)


def _has_type(value: Any, expected: Any) -> bool:
    """Exact types, but that an int passes for a float: True is no int, 2.0 is no int."""
    accepted = typing.get_args(expected) or (expected,)
    return type(value) in accepted or (type(value) is int and float in accepted)
