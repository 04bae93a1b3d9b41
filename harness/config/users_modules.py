"""Users' modules, which the config key `imports` lists, and where Python finds them.

Python looks for them wherever it looks for any module, and then in the current folder: last, so that a file
there hides no other module, and only for the listed names. A module that is not listed is not found there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_names: set[str] = set()
"""Packages and top-level modules that may be found in the current folder."""


class _CurrentFolderFinder:
    """Finder of the listed modules in the current folder."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a listed top-level module in the current folder; None for any other."""
        return PathFinder.find_spec(name, [os.getcwd()]) if path is None and name in _names else None


def find_in_current_folder(names: Sequence[str]) -> None:
    """Let Python find these modules in the current folder too, behind every other place."""
    _names.update(_top_level(name) for name in names)
    if names and _CurrentFolderFinder not in sys.meta_path:
        sys.meta_path.append(_CurrentFolderFinder)  # pyright: ignore[reportArgumentType]
        importlib.invalidate_caches()


def search_path() -> list[Path]:
    """Return the folders in which users' modules are looked up, in this order."""
    return [*map(Path, sys.path), Path.cwd()]


def origin_of(name: str) -> str:
    """Return the file or folder from which a module would be imported; '' if there is none. Runs nothing: of
    `package.module` it is the package's."""
    top = _top_level(name)
    try:
        spec = importlib.util.find_spec(top) or PathFinder.find_spec(top, [os.getcwd()])
    except ValueError:  # an empty name, or __main__
        return ""
    places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
    return next(filter(None, places), "")


def _top_level(name: str) -> str:
    return name.partition(".")[0]
