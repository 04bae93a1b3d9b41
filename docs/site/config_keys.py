"""Every key of the config with its type, default and meaning, read from the schema."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from harness.config.compose import CONF_FOLDER, compose
from harness.config.schema.ranges import RANGES
from harness.config.schema.run import Config, ModuleConfig

_PLAIN_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_ANY_NAME = "NAME"
_ANY_POSITION = "N"


@dataclass(frozen=True)
class ConfigKey:
    """Key of the config, in the words of its page."""

    name: str
    """Dotted name; NAME is a name of your own, N a position of a list."""
    type: str
    default: str
    """Value without any override, as YAML; empty if there is none."""
    meaning: str


@dataclass(frozen=True)
class ConfigNode:
    """Node of the config with the keys directly below it."""

    name: str
    """Dotted name; empty for the top."""
    meaning: str
    choices: tuple[str, ...]
    """Names that stand in `conf/NODE`."""
    keys: tuple[ConfigKey, ...]


def config_nodes() -> Iterator[ConfigNode]:
    """Yield the top of the config and every node below it, each before those that it holds."""
    yield from _nodes(Config, compose([]), "", "Keys that stand in no node.")


def _nodes(schema: type, value: Any, name: str, meaning: str) -> Iterator[ConfigNode]:
    """Yield the node and those below it. `value` is the node without any override; None: there is none."""
    keys, below = [], []
    for item, hint in get_type_hints(schema).items():
        key = f"{name}.{item}".lstrip(".")
        default = getattr(value, item) if value is not None else _schema_default(schema, item)
        held, suffix = _held_schema(hint)
        if held is None:
            keys.append(
                ConfigKey(key, type_words(hint), _as_yaml(default), _meaning(schema, item, hint, key))
            )
            continue
        text = attribute_docs(schema).get(item) or _first_paragraph(held)
        below.append(_nodes(held, default if not suffix else None, key + suffix, text))
    yield ConfigNode(name, meaning, _choices(name), tuple(keys))
    for nodes in below:
        yield from nodes


def _held_schema(hint: Any) -> tuple[type | None, str]:
    """Return the node that a key holds, and what its name takes beside that of the key; (None, "") for a
    value. A mechanism, `{name, options}`, counts as a value."""
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) in (Union, UnionType) and len(parts) == 1:
        (hint,) = parts  # a node that may be absent
    suffix = {list: f".{_ANY_POSITION}", dict: f".{_ANY_NAME}"}.get(get_origin(hint), "")
    held = get_args(hint)[-1] if suffix else hint
    is_node = isinstance(held, type) and dataclasses.is_dataclass(held) and held is not ModuleConfig
    return (held, suffix) if is_node else (None, "")


def type_words(hint: Any) -> str:
    """Return the type of a key in words, such as `list of integers` or `integer or null`."""
    if hint is ModuleConfig:
        return "`{name, options}`"
    if hint is Any:
        return "any value"
    if isinstance(hint, type) and issubclass(hint, Enum):
        names = [f"`{member.name}`" for member in hint]
        return f"{', '.join(names[:-1])} or {names[-1]}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(type_words, get_args(hint)))
    if get_origin(hint) is list:
        return f"list of {_plural(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"{_plural(get_args(hint)[1])} by name"
    return _PLAIN_TYPES[hint]


def _plural(hint: Any) -> str:
    words = {str: "texts", Any: "values", bool: "flags"}
    return words.get(hint) or type_words(hint) + "s" * (hint is not ModuleConfig)


def _meaning(schema: type, item: str, hint: Any, key: str) -> str:
    """Return the docstring of a key, or that of its enum, and its range."""
    text = attribute_docs(schema).get(item)
    if not text:
        enums = [
            kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Enum)
        ]
        text = _first_paragraph(enums[0]) if enums else ""
    pattern = key.replace(_ANY_NAME, "*").replace(_ANY_POSITION, "*")
    limits = [str(limit) for name, limit in RANGES.items() if name in (pattern, f"{pattern}.*")]
    return " ".join([text, *(f"({limit.removeprefix('a finite number, ')})" for limit in limits)]).strip()


@cache
def attribute_docs(schema: type) -> dict[str, str]:
    """Return the docstring that follows each field of a class in its source, as one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
            texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # pyright: ignore
    return texts


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _first_paragraph(schema: type) -> str:
    return " ".join((inspect.getdoc(schema) or "").partition("\n\n")[0].split())


def _schema_default(schema: type, item: str) -> Any:
    (field,) = (field for field in dataclasses.fields(schema) if field.name == item)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def _as_yaml(value: Any) -> str:
    """Return a default as it is written after `KEY=`; empty for one that has to be given."""
    if value == MISSING:
        return ""
    if isinstance(value, ModuleConfig):
        return value.name
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_as_yaml(held)}" for name, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _choices(name: str) -> tuple[str, ...]:
    folder = CONF_FOLDER / name
    return tuple(sorted(path.stem for path in folder.glob("*.yaml"))) if name else ()
