"""Registries: implementations by name, and the `{name, options}` nodes of a config that choose them.

An implementation is registered with a frozen dataclass of its options, which validates the node.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from harness.config.schema.run import ModuleConfig
from harness.core.errors import UserError, did_you_mean


class Entry(Protocol):
    """Registration of an implementation: a name, the dataclass of its options, and facts of its socket."""

    @property
    def name(self) -> str:
        """Name in a config."""
        ...

    @property
    def options(self) -> type:
        """Frozen dataclass of the options."""
        ...

    @property
    def implementation(self) -> Any:
        """Class or function that does the work."""
        ...


EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(frozen=True)
class NoOptions:
    """Options of an implementation that has none."""


@dataclass(frozen=True)
class Configured(Generic[EntryT]):
    """An entry with validated options: the meaning of a config's `{name, options}` node. In a dataclass of
    options, `Configured` is such a node, and `tuple[Configured, ...]` a list of them."""

    entry: EntryT
    options: Any

    @property
    def name(self) -> str:
        """Name in the config."""
        return self.entry.name

    def nested(self) -> Iterator[Configured[Any]]:
        """Yield this entry and those that its options name, recursively."""
        yield self
        for option in dataclasses.fields(self.options):
            value = getattr(self.options, option.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Configured):
                    yield from item.nested()


@dataclass(frozen=True)
class Registry(Generic[EntryT]):
    """Implementations of one socket by name."""

    kind: str
    """Word for an entry in error messages: `attention`."""
    key: str
    """Config node that chooses one: `model.attention`."""
    configure: Callable[[EntryT, Any], Any] = Configured
    """Builder of what `lookup` returns, from an entry and its options."""
    entries: dict[str, EntryT] = field(default_factory=dict)

    def add(self, entry: EntryT) -> None:
        """Register an entry. Raises UserError if another implementation has its name."""
        existing = self.entries.get(entry.name)
        if existing and existing.implementation.__qualname__ != entry.implementation.__qualname__:
            raise UserError(
                f"{self.kind} '{entry.name}' is registered by both {existing.implementation} and"
                f" {entry.implementation}. Rename one."
            )
        self.entries[entry.name] = entry

    def lookup(self, node: ModuleConfig, key: str | None = None) -> Any:
        """Return the entry that a config node names, with its options, as `configure` builds it. `key` is the
        path of the node in the config. Raises UserError for an unknown name or an invalid option."""
        key = key or self.key
        entry = self.entries.get(node.name)
        if entry is None:
            raise UserError(
                f"{key}.name={node.name} is not registered: {did_you_mean(node.name, self.entries)}"
                " (List a module of your own in `imports`.)"
            )
        return self.configure(entry, self._options(entry.options, node.options, f"{key}.options"))

    def _options(self, options: type, nodes: Mapping[str, Any], key: str) -> Any:
        fields = {field.name: field for field in dataclasses.fields(options)}
        hints = typing.get_type_hints(options)
        values = {}
        for name, value in nodes.items():
            if name not in fields:
                raise UserError(f"{key}.{name} does not exist: {did_you_mean(name, fields)}")
            values[name] = self._value(value, hints[name], f"{key}.{name}")
        required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
        if missing := [name for name in required if name not in nodes]:
            name = missing[0]
            raise UserError(f"{key}.{name} is missing. Give a value of type {_type_names(hints[name])}.")
        return options(**values)

    def _value(self, value: Any, expected: Any, key: str) -> Any:
        if _is_node(expected):
            return self.lookup_node(value, key)
        item = _item_type(expected)
        if item is not None and _is_node(item):
            if not isinstance(value, list | tuple) or not value:
                raise UserError(f"{key}={value!r} must be a list of at least one {{name, options}}.")
            return tuple(self.lookup_node(node, f"{key}[{index}]") for index, node in enumerate(value))
        if item is not None and isinstance(value, list | tuple):
            return tuple(self._value(part, item, f"{key}[{index}]") for index, part in enumerate(value))
        if not _has_type(value, expected):
            raise UserError(
                f"{key}={value!r} is of type {type(value).__name__}. Give a value of type"
                f" {_type_names(expected)}."
            )
        return value

    def lookup_node(self, node: Any, key: str) -> Any:
        """Return the entry of a plain `{name, options}` node, such as one inside the options of another."""
        if not isinstance(node, Mapping) or "name" not in node or not node.keys() <= {"name", "options"}:
            raise UserError(f"{key}={node!r} must have the form {{name: NAME, options: {{...}}}}.")
        options = node.get("options") or {}
        if not isinstance(options, Mapping):
            raise UserError(f"{key}.options={options!r} must be a mapping {{KEY: VALUE}}.")
        options = {str(name): value for name, value in options.items()}
        return self.lookup(ModuleConfig(str(node["name"]), options), key)


def _is_node(expected: Any) -> bool:
    origin = typing.get_origin(expected) or expected
    return isinstance(origin, type) and issubclass(origin, Configured)


def _item_type(expected: Any) -> Any:
    """Return T of `tuple[T, ...]`; None for any other type."""
    arguments = typing.get_args(expected)
    return arguments[0] if typing.get_origin(expected) is tuple and arguments[1:] == (...,) else None


def _accepted(expected: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    return typing.get_args(expected) if is_union else (expected,)


def _type_names(expected: Any) -> str:
    def name(kind: Any) -> str:
        if typing.get_origin(kind) is typing.Literal:
            return " or ".join(map(str, typing.get_args(kind)))
        if _item_type(kind) is not None:
            return "list"
        return "null" if kind is type(None) else kind.__name__

    return " or ".join(map(name, _accepted(expected)))


def _has_type(value: Any, expected: Any) -> bool:
    """Return whether a value has exactly an expected type. An int passes for a float, True not for an int."""
    accepted = _accepted(expected)
    if any(typing.get_origin(kind) is typing.Literal and value in typing.get_args(kind) for kind in accepted):
        return True
    return type(value) in accepted or (type(value) is int and float in accepted)
