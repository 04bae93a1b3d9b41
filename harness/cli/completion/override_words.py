"""Words that may follow `harness sweep`: groups and keys of the config, and the values that each may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_type_hints

from harness.config.recipes.sizes import LADDERS, SIZES
from harness.config.schema.run import Config, field_type
from harness.config.variants.option_files import OWN_FOLDER, group_options, option_files, search_folders

_FILE_KEY = re.compile(r"runs|data\.tokenizer|finetune\.parent|.*\.(path|validation)")
SIZE = "size"
"""Other word for the scales that have one."""


def completions(prefix: str, words: Sequence[str]) -> list[str]:
    """Return the overrides that begin so. `words`: the whole command, for the folders of own choices."""
    key, equals, value = prefix.partition("=")
    if not equals:
        return _keys(prefix, words)
    earlier, comma, _ = value.rpartition(",")
    earlier_options = {*earlier.split(",")}
    overrides = [
        f"{key}={earlier}{comma}{option}" for option in _values(key, words) if option not in earlier_options
    ]
    return [word for word in overrides if word.startswith(prefix)]


def names_file(key: str) -> bool:
    """Return whether the value of a key is a path."""
    return _FILE_KEY.fullmatch(key) is not None


def _values(key: str, words: Sequence[str]) -> list[str]:
    if key == SIZE:
        return [*SIZES, *LADDERS]
    declared = field_type(key)
    types = get_args(declared) or (declared,)
    values = [option for kind in types for option in _values_of(kind)]
    return [*group_options(key, words), *values]


def _values_of(declared: Any) -> list[str]:
    if declared is bool:
        return ["true", "false"]
    if declared is NoneType:
        return ["null"]
    return [str(item.value) for item in declared] if _is_enum(declared) else []


def _is_enum(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, Enum)


def _keys(prefix: str, words: Sequence[str]) -> list[str]:
    """Return the keys that begin so, one level of dots at a time: `rule.` stands for the keys of a node. A
    node that is the only answer is opened at once."""
    parent, dot, _ = prefix.rpartition(".")
    node = field_type(parent) if dot else Config
    names = [f"{parent}{dot}{name}" for name in _children(node)]
    if not dot:
        groups = option_files(search_folders(words))
        own_words = [f"hydra.searchpath=[file://{OWN_FOLDER}]"] if OWN_FOLDER.is_dir() else []
        names += [*(f"{group}=" for group in (*groups, SIZE)), *own_words]
    matches = sorted({name for name in names if name.startswith(prefix)})
    if len(matches) == 1 and matches[0].endswith(".") and matches[0] != prefix:
        return _keys(matches[0], words)
    return matches


def _children(node: Any) -> list[str]:
    """Return the names in a node of the schema: with a dot where it is a node itself, otherwise with `=`."""
    if not is_dataclass(node):
        return []
    hints = get_type_hints(node)
    return [f"{item.name}{'.' if is_dataclass(hints[item.name]) else '='}" for item in fields(node)]
