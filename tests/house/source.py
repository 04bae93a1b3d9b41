"""Python files of the package, parsed once."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HARNESS = Path(__file__).parents[2] / "harness"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class SourceFile:
    """One parsed file."""

    path: Path
    shown_path: str
    """Path as printed, relative to the folder above the package."""
    module: str
    room: str
    """Folder at the top of the package; the stem of a file that lies there itself."""
    text: str
    tree: ast.Module

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def scopes(self) -> list[tuple[ast.AST, str]]:
        """Every node with the dotted name of the definition around it."""
        return list(_walk(self.tree, ""))


@dataclass(frozen=True)
class Finding:
    """One offender."""

    shown_path: str
    line: int
    function: str
    """Dotted name of the enclosing definition, or `-` at module level."""
    name: str
    detail: str
    rooms: frozenset[str]

    def __str__(self) -> str:
        return f"{self.shown_path}:{self.line}  {self.function or '-'}  {self.name}  {self.detail}"


def finding(file: SourceFile, line: int, function: str, name: str, detail: str | None = None) -> Finding:
    """Describe one offender; the detail defaults to its source line."""
    if detail is None:
        detail = file.lines[line - 1].strip() if line <= len(file.lines) else ""
    return Finding(file.shown_path, line, function, name, detail, frozenset({file.room}))


def words(*lines: str) -> frozenset[str]:
    """Split lines of text into a set of words."""
    return frozenset(word for line in lines for word in line.split())


def load(root: Path = HARNESS) -> list[SourceFile]:
    """Parse every Python file below a package's folder."""
    return [_parse(path, root) for path in sorted(root.rglob("*.py"))]


def _parse(path: Path, root: Path) -> SourceFile:
    inner = path.relative_to(root)
    parts = [root.name, *inner.with_suffix("").parts]
    if parts[-1] == "__init__":
        parts.pop()
    text = path.read_text()
    room = inner.parts[0].removesuffix(".py")
    shown = str(path.relative_to(root.parent))
    return SourceFile(path, shown, ".".join(parts), room, text, ast.parse(text))


def _walk(node: ast.AST, scope: str) -> Iterator[tuple[ast.AST, str]]:
    yield node, scope
    inside = f"{scope}.{node.name}".lstrip(".") if isinstance(node, Definition) else scope
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, inside)
