"""Old module paths: what users' mechanisms import works for one version, the rest is answered with its place.

`moved.json` holds `modules`, old path -> new path, and `names`, old path -> {old name: "new.module:NewName"}
of what users' own files import (docs/new_variant.md); RENAMED holds the arguments and attributes they use.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

TABLE = Path(__file__).with_name("moved.json")
RENAMED = {
    "after_step": "update_after_step",
    "idle_parameters": "inactive_parameters",
    "parts": "sequence_shards",
    "sequences": "per_device_batch",
    "splits": "supports_sequence_parallel",
}


class MovedNameWarning(DeprecationWarning):
    """Warning about an old name in a user's own file: shown by default, unlike other deprecations."""


def install() -> None:
    """Answer imports of old module paths from now on. Installing twice changes nothing."""
    warnings.filterwarnings("default", category=MovedNameWarning)
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())


class MovedFinder(MetaPathFinder):
    """Finder that is asked last: only for module paths that do not exist (any more)."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the stand-in of a module that users import. Raises ModuleNotFoundError."""
        if not fullname.startswith("harness."):
            return None
        if fullname in _table()["names"]:
            return ModuleSpec(fullname, StandIn())
        if fullname in _table()["modules"]:
            new = _table()["modules"][fullname]
            raise ModuleNotFoundError(f"{fullname} moved. Import {new} instead.", name=fullname)
        return None


class StandIn(Loader):
    """Loader of a module that forwards its old names to their new places, each with a MovedNameWarning."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Forward every attribute that is looked up."""
        vars(module)["__getattr__"] = forward(module.__name__)


def forward(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module whose public names were renamed or moved."""

    def get(name: str) -> Any:
        names: Mapping[str, str] = _table()["names"].get(module, {})
        unchanged = f"{_table()['modules'].get(module, '')}:{name}"
        place, _, new = names.get(name, unchanged).partition(":")
        if not place or name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        stable = new in importlib.import_module("harness.extend").__all__
        home = "harness.extend" if stable else place
        message = f"{module}.{name} is deprecated: import {new} from {home}"
        warnings.warn(message, MovedNameWarning, stacklevel=2)
        return getattr(importlib.import_module(place), new)

    return get


def current_name(name: str) -> str:
    """Return the name that an argument or attribute has now, with a MovedNameWarning if `name` is old."""
    if name in RENAMED:
        warnings.warn(f"'{name}' is now called '{RENAMED[name]}'.", MovedNameWarning, stacklevel=3)
    return RENAMED.get(name, name)


@cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())
