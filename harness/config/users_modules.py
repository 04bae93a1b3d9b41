"""Users' modules, which the config key `imports` lists, and where Python finds them.

Python looks for them wherever it looks for any module, and then in the current folder: last, so that a file
there hides no other module, and only for the listed names and for what those modules import by statement. Any
other module is not found there. The questions that ship with the harness, `experiments.questions`, are found
from everywhere.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from harness.config.variants.question_files import EXPERIMENTS, QUESTIONS
from harness.core.loaded_code import installed_folders

_HARNESS = Path(__file__).parents[1]
_names: set[str] = set()
"""Packages and top-level modules that may be found in the current folder."""


class _CurrentFolderFinder:
    """Finder of the listed modules in the current folder."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a listed top-level module in the current folder; None for any other."""
        return PathFinder.find_spec(name, [os.getcwd()]) if path is None and name in _names else None


class _PackageFinder:
    """Finder of one package without an `__init__.py`, in a folder that Python does not search."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of the package; None for any other module."""
        if name != self._name:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(self._folder)]
        return spec


_QUESTIONS_PACKAGE = f"{EXPERIMENTS.name}.{QUESTIONS.name}"
_QUESTIONS_FINDER = _PackageFinder(_QUESTIONS_PACKAGE, QUESTIONS)
_EXPERIMENTS_FINDER = _PackageFinder(EXPERIMENTS.name, EXPERIMENTS)


def question_file(name: str) -> Path | None:
    """Return the file of a module that is a question of the harness; None if it is not one."""
    package, _, parts = name.partition(f"{_QUESTIONS_PACKAGE}.")
    file = QUESTIONS.joinpath(*parts.split(".")).with_suffix(".py")
    return file if parts and not package and file.is_file() else None


def find_modules(names: Sequence[str]) -> None:
    """Let Python find these modules: questions of the harness before all others of their name, and what lies
    in the current folder behind every other place."""
    _find_in_current_folder([name for name in names if question_file(name) is None])
    if any(map(question_file, names)) and _QUESTIONS_FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _QUESTIONS_FINDER)  # pyright: ignore[reportArgumentType]
        sys.meta_path.append(_EXPERIMENTS_FINDER)  # pyright: ignore[reportArgumentType]


def _find_in_current_folder(names: Sequence[str]) -> None:
    _names.update(_top_level(name) for name in names)
    _names.update(imported_packages(names))
    if names and _CurrentFolderFinder not in sys.meta_path:
        sys.meta_path.append(_CurrentFolderFinder)  # pyright: ignore[reportArgumentType]
        importlib.invalidate_caches()


def source_paths(names: Sequence[str]) -> list[Path]:
    """Return the files and folders of the listed modules, then those of the packages and modules that they
    import by statement, outside installed packages. Nothing is run."""
    listed_paths = [path for name in names if (path := _source_path(name)) is not None]
    return [*listed_paths, *(p for p in imported_packages(names).values() if p not in listed_paths)]


def imported_packages(names: Sequence[str]) -> dict[str, Path]:
    """Return the file or folder of each top-level module that the listed modules import, directly or through
    each other, outside installed packages."""
    submodules = [name for name in names if name.count(".") > 1 and question_file(name) is None]
    nested = [_top_level(name) for name in submodules]  # whose relative imports may go up
    packages = {name: path for name in nested if (path := _users_path(name)) is not None}
    waiting = [path for name in names if (path := _source_path(name)) is not None]
    while waiting:
        for name in sorted(_imports_of(waiting.pop()) - packages.keys()):
            if (path := _users_path(name)) is not None:
                packages[name] = path
                waiting.append(path)
    return packages


def _source_path(module: str) -> Path | None:
    """Return the folder of a module in a package, or the file of a top-level module or of a question; None if
    there is none."""
    if question := question_file(module):
        return question
    top, *submodules = module.split(".")
    for entry in (*map(Path, sys.path), Path.cwd()):
        path = entry.joinpath(top, *submodules)
        if path.is_dir():
            return path
        if path.with_suffix(".py").is_file():
            return path.parent if submodules else path.with_suffix(".py")
    return None


def _imports_of(path: Path) -> set[str]:
    """Return the top-level names that the files of a module import by statement. A relative import names the
    module's own package."""
    names: set[str] = set()
    for file in [path] if path.is_file() else path.rglob("*.py"):
        try:
            nodes = [*ast.walk(ast.parse(file.read_bytes()))]
        except (OSError, SyntaxError, ValueError):  # importing it will tell
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                names |= {_top_level(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(_top_level(node.module or ""))
    return names - {""}


def _users_path(name: str) -> Path | None:
    """Return the file or folder of a top-level module; None if it is installed, built in or missing."""
    origin = origin_of(name)
    path = Path(origin)
    if not origin or name in sys.stdlib_module_names or not path.exists():
        return None
    path = path.parent if path.name == "__init__.py" else path
    return None if any(map(path.is_relative_to, [*installed_folders(), _HARNESS])) else path.resolve()


def origin_of(name: str) -> str:
    """Return the file or folder from which a module would be imported; '' if there is none. Runs nothing: of
    `package.module` it is the package's, unless it is a question."""
    if question := question_file(name):
        return str(question)
    top = _top_level(name)
    try:
        spec = importlib.util.find_spec(top) or PathFinder.find_spec(top, [os.getcwd()])
    except ValueError:  # an empty name, or __main__
        return ""
    places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
    return next(filter(None, places), "")


def _top_level(name: str) -> str:
    return name.partition(".")[0]
