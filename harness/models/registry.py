"""Mechanisms by name: how an attention or a feed-forward variant makes itself known.

    @attention("mine", Options, model_flops=..., executed_flops=...)
    class Mine(nnx.Module):
        def __init__(self, site: Site, options: Options): ...
        def __call__(self, x_BTD, rotary): ...

A config names a mechanism and never imports it; a module that registers one is listed in `imports`.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx

from harness.config import schema
from harness.config.errors import UserError, nearest
from harness.models.contract import Products, Site

Module = TypeVar("Module", bound=type[nnx.Module])


@dataclass(frozen=True)
class Mechanism:
    """One registered mechanism; the two counts are of one token's forward pass in one layer."""

    name: str
    options: type
    module: Any
    model_flops: Callable[[Site, Any], float]
    """FLOPs that the mathematics needs: causality, window and experts used are taken off."""
    executed_flops: Callable[[Site, Any], Products]
    """FLOPs of the products as they are written."""
    period: Callable[[Any], int]
    """After how many layers the pattern repeats; a scan runs over whole repeats."""


@dataclass(frozen=True)
class Chosen:
    """A mechanism with validated options: what a config's `{name, options}` node means."""

    mechanism: Mechanism
    options: Any

    @property
    def period(self) -> int:
        return self.mechanism.period(self.options)

    def module(self, site: Site) -> Any:
        return self.mechanism.module(site, self.options)

    def model_flops(self, site: Site) -> float:
        return self.mechanism.model_flops(site, self.options)

    def executed_flops(self, site: Site) -> Products:
        return self.mechanism.executed_flops(site, self.options)


_REGISTERED: dict[str, dict[str, Mechanism]] = {"attention": {}, "feedforward": {}}


def mechanism(
    kind: str,
    name: str,
    options: type,
    *,
    model_flops: Callable[[Site, Any], float],
    executed_flops: Callable[[Site, Any], Products],
    period: Callable[[Any], int] = lambda options: 1,
) -> Callable[[Module], Module]:
    """Registers the decorated module under `name`; `options` is its frozen dataclass.

    Raises UserError if another module has the name.
    """

    def register(module: Module) -> Module:
        known = _REGISTERED[kind].get(name)
        if known and known.module.__qualname__ != module.__qualname__:
            raise UserError(f"{kind} '{name}' is registered by both {known.module} and {module}: rename one.")
        _REGISTERED[kind][name] = Mechanism(name, options, module, model_flops, executed_flops, period)
        return module

    return register


attention = functools.partial(mechanism, "attention")
feedforward = functools.partial(mechanism, "feedforward")


def choose(kind: str, node: schema.Mechanism) -> Chosen:
    """The mechanism that `model.<kind>` names, with its options; UserError if there is none such."""
    found = _REGISTERED[kind].get(node.name)
    if found is None:
        raise UserError(
            f"model.{kind}.name={node.name} is not registered: {nearest(node.name, _REGISTERED[kind])}"
            " (a module of your own is to be listed in `imports`)"
        )
    return Chosen(found, _validated(found.options, dict(node.options), f"model.{kind}.options"))


def _validated(options: type, given: dict[str, Any], key: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(options)}
    types = typing.get_type_hints(options)
    for name, value in given.items():
        if name not in fields:
            raise UserError(f"{key}.{name} does not exist: {nearest(name, fields)}")
        if not _fits(value, types[name]):
            expected = getattr(types[name], "__name__", types[name])
            raise UserError(
                f"{key}.{name}={value!r} is of type {type(value).__name__}: give one of type {expected}."
            )
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if absent := [name for name in required if name not in given]:
        raise UserError(f"{key}.{absent[0]} is missing: give a value of type {types[absent[0]].__name__}.")
    return options(**given)


def _fits(value: Any, expected: Any) -> bool:
    """Exact types, but that an int passes for a float: True is no int, 2.0 is no int."""
    accepted = typing.get_args(expected) or (expected,)
    return type(value) in accepted or (type(value) is int and float in accepted)
