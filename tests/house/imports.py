"""Imports between files: circles, and arrows that the tables in `rooms` do not allow."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.measure import Measure
from tests.house.rooms import ALLOWED, SUB_ROOMS
from tests.house.source import Finding, SourceFile, finding


@dataclass(frozen=True)
class Arrow:
    """One import of a file by another."""

    source: SourceFile
    target: SourceFile
    line: int
    function: str


def arrows(files: list[SourceFile]) -> list[Arrow]:
    """Find every import between files, lazy ones and those under `if TYPE_CHECKING` included.

    `from a.b import c` points at the file `a/b/c.py` if there is one, otherwise at `a/b`. The packages
    that Python loads on the way (`a/__init__.py`) do not count.
    """
    by_module = {file.module: file for file in files}
    return [
        Arrow(file, by_module[target], line, function)
        for file in files
        for target, line, function in _targets(file, by_module)
        if target != file.module
    ]


def _targets(file: SourceFile, by_module: dict[str, SourceFile]) -> Iterator[tuple[str, int, str]]:
    for node, function in file.scopes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, file)
            modules = [_deepest(base, alias.name, by_module) for alias in node.names]
        else:
            continue
        yield from (
            (module, node.lineno, function) for module in dict.fromkeys(modules) if module in by_module
        )


def _base(node: ast.ImportFrom, file: SourceFile) -> str:
    if not node.level:
        return node.module or ""
    package = file.module.split(".")
    depth = node.level - (file.path.name == "__init__.py")
    package = package[: len(package) - depth]
    return ".".join([*package, *([node.module] if node.module else [])])


def _deepest(base: str, name: str, by_module: dict[str, SourceFile]) -> str:
    return f"{base}.{name}" if f"{base}.{name}" in by_module else base


def circles(files: list[SourceFile]) -> list[list[str]]:
    """Find the strongly connected components of two or more files."""
    edges: dict[str, set[str]] = {file.module: set() for file in files}
    for arrow in arrows(files):
        edges[arrow.source.module].add(arrow.target.module)
    reach = {module: _reachable(module, edges) for module in edges}
    components = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in edges
        if module in reach[module]
    }
    return [list(component) for component in sorted(components) if len(component) > 1]


def _reachable(module: str, edges: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    queue = list(edges[module])
    while queue:
        target = queue.pop()
        if target not in reached:
            reached.add(target)
            queue.extend(edges[target])
    return reached


def measure_circles(files: list[SourceFile]) -> Measure:
    """Count the circles; each offender is an import inside one."""
    components = circles(files)
    number = {module: index for index, component in enumerate(components, 1) for module in component}
    findings = [
        _finding(arrow, f"circle {number[arrow.source.module]}")
        for arrow in arrows(files)
        if number.get(arrow.source.module, -1) == number.get(arrow.target.module, 0)
    ]
    mend = "Move what both files need into a third file below them, or describe it by a Protocol."
    return Measure("circles", "import circles among files", len(components), findings, mend)


def measure_arrows(files: list[SourceFile]) -> Measure:
    """Count the pairs of rooms that the table does not allow, and rooms that it lacks."""
    findings = [_finding(arrow, _rooms(arrow)) for arrow in arrows(files) if not room_allowed(arrow)]
    known = [file for file in files if file.room not in ALLOWED]
    pairs = {found.name for found in findings} | {f"room {file.room}" for file in known}
    findings += [finding(file, 1, "", f"room {file.room}", "not in the table of rooms") for file in known]
    mend = "Hand the value in as an argument, or move it to a lower room (table: tests/house/rooms.py)."
    return Measure("arrows", "arrows between rooms outside the table", len(pairs), findings, mend)


def room_allowed(arrow: Arrow) -> bool:
    """Say whether the table allows an import between rooms. Rooms that it lacks are reported apart."""
    source, target = arrow.source.room, arrow.target.room
    return source == target or not {source, target} <= ALLOWED.keys() or target in ALLOWED[source]


def measure_sub_arrows(files: list[SourceFile]) -> Measure:
    """Count the pairs of sub-rooms that the table does not allow, and sub-rooms that it lacks."""
    findings = [_finding(arrow, _sub_rooms(arrow)) for arrow in arrows(files) if not sub_room_allowed(arrow)]
    pairs = {found.name for found in findings}
    mend = "Move the shared part to a lower sub-room, or hand it in (table: tests/house/rooms.py)."
    return Measure("sub_arrows", "arrows between sub-rooms outside the table", len(pairs), findings, mend)


def sub_room(file: SourceFile) -> str:
    """Name the folder inside the room that holds a file; `""` if the room itself does."""
    parts = file.module.split(".")[2:]
    return parts[0] if len(parts) > 1 or (parts and file.path.name == "__init__.py") else ""


def sub_room_allowed(arrow: Arrow) -> bool:
    """Say whether the table allows an import inside one room."""
    room = arrow.source.room
    if room != arrow.target.room or room not in SUB_ROOMS:
        return True
    source, target = sub_room(arrow.source), sub_room(arrow.target)
    return source == target or target in SUB_ROOMS[room].get(source, set())


def _finding(arrow: Arrow, name: str) -> Finding:
    made = finding(arrow.source, arrow.line, arrow.function, name)
    rooms = frozenset({arrow.source.room, arrow.target.room})
    return Finding(made.shown_path, made.line, made.function, made.name, made.detail, rooms)


def _rooms(arrow: Arrow) -> str:
    return f"{arrow.source.room} -> {arrow.target.room}"


def _sub_rooms(arrow: Arrow) -> str:
    source, target = (sub_room(file) or "(top)" for file in (arrow.source, arrow.target))
    return f"{arrow.source.room}: {source} -> {target}"
