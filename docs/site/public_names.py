"""Public names of a module, which autodoc documents from their docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import harness

PIECES = re.compile(r"(`+[^`]*`+)")
"""Code inside a text, with the backticks."""
SIGNS = re.compile(r"([*|@\\]|_\b)")
"""Signs that reStructuredText would read."""


def public_names(module: str) -> str:
    """Return the directives of autodoc for every name in `__all__` of a module, in its order, as MyST."""
    lines = "\n".join(_directives(importlib.import_module(module)))
    return f"```{{eval-rst}}\n{lines}\n```"


def _directives(module: Any) -> Iterator[str]:
    origins = _origins(module)
    for name in module.__all__:
        value = getattr(module, name)
        kind = _kind(value)
        # The docstring of a value stands where it is assigned.
        place = origins.get(name, module.__name__) if kind == "data" else module.__name__
        yield f".. auto{kind}:: {place}.{name}"
        yield from ["   :members:"] * (kind == "class")
        yield from ["   :no-value:"] * (kind == "data")
        # The index has one place of each object.
        yield from ["   :no-index:"] * (module is not harness and value is getattr(harness, name, None))
        yield ""


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def _origins(module: Any) -> dict[str, str]:
    """Return the module from which each name was imported."""
    imports = [
        node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)
    ]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


def plain_docstring(*event: Any) -> None:
    """Change the lines of a docstring, the last argument, in place: our docstrings are plain sentences with
    code in backticks, and reStructuredText would read other signs in them too."""
    lines: list[str] = event[-1]
    text = "\n".join(lines)
    pieces = PIECES.split(text)  # every second one is code
    pieces[::2] = [SIGNS.sub(r"\\\1", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"``{piece.strip('`')}``" for piece in pieces[1::2]]
    lines[:] = "".join(pieces).split("\n")
