"""Sizes, and names that stand in several places."""

import ast
from collections import defaultdict

from tests.house.limits import MAX_FILE_LINES, MAX_FILES_IN_ROOM, MAX_FUNCTION_LINES
from tests.house.measure import Measure
from tests.house.source import Finding, Function, SourceFile, finding


def measure_folders(files: list[SourceFile]) -> Measure:
    """Count the files that lie directly in each room, `__init__` apart; the value is the largest count."""
    counts: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        if file.path.parent.name == file.room and not file.path.stem.startswith("__"):
            counts[file.room].append(file)
    findings = [
        Finding(str(_folder(inside[0])), 1, "", room, f"{len(inside)} files", frozenset({room}))
        for room, inside in sorted(counts.items(), key=lambda item: -len(item[1]))
        if len(inside) > MAX_FILES_IN_ROOM
    ]
    largest = max((len(inside) for inside in counts.values()), default=0)
    mend = "Sort the files into sub-rooms, each with one question."
    return Measure("folders", "files directly in a room, the largest", largest, findings, mend)


def _folder(file: SourceFile) -> str:
    return file.shown_path.rpartition("/")[0]


def measure_repeated_files(files: list[SourceFile]) -> Measure:
    """Count the file names that stand in two or more rooms, `__init__` and `__main__` apart."""
    places: dict[str, list[tuple[SourceFile, int]]] = defaultdict(list)
    for file in files:
        if not file.path.stem.startswith("__"):
            places[file.path.stem].append((file, 1))
    repeated = {name: found for name, found in places.items() if len({file.room for file, _ in found}) > 1}
    mend = "Name the file after its subject, so that the name alone tells it from the others."
    return Measure(
        "repeated_files", "file names in two or more rooms", len(repeated), _repeated(repeated), mend
    )


def measure_repeated_classes(files: list[SourceFile]) -> Measure:
    """Count the names of module-level classes that stand in two or more files."""
    places: dict[str, list[tuple[SourceFile, int]]] = defaultdict(list)
    for file in files:
        for node in file.tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append((file, node.lineno))
    repeated = {name: found for name, found in places.items() if len({file.path for file, _ in found}) > 1}
    mend = "Name the class after what sets it apart from the other of its name."
    return Measure(
        "repeated_classes", "class names in two or more files", len(repeated), _repeated(repeated), mend
    )


def _repeated(places: dict[str, list[tuple[SourceFile, int]]]) -> list[Finding]:
    findings = []
    for name, found in sorted(places.items()):
        rooms = frozenset(file.room for file, _ in found)
        findings += [
            Finding(file.shown_path, line, "", name, f"one of {len(found)}", rooms) for file, line in found
        ]
    return findings


def measure_long_functions(files: list[SourceFile]) -> Measure:
    """Count the functions that are too long."""
    findings = [
        finding(file, node.lineno, scope, node.name, f"{length} lines")
        for file in files
        for node, scope in file.scopes
        if isinstance(node, Function)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    mend = "Split the function at its steps."
    return Measure(
        "long_functions", f"functions over {MAX_FUNCTION_LINES} lines", len(findings), findings, mend
    )


def measure_long_files(files: list[SourceFile]) -> Measure:
    """Count the files that are too long."""
    findings = [
        finding(file, 1, "", file.path.stem, f"{len(file.lines)} lines")
        for file in files
        if len(file.lines) > MAX_FILE_LINES
    ]
    mend = "Split the file by subject."
    return Measure("long_files", f"files over {MAX_FILE_LINES} lines", len(findings), findings, mend)


def measure_lines(files: list[SourceFile]) -> Measure:
    """Count the lines of the package."""
    total = sum(len(file.lines) for file in files)
    return Measure("lines", "lines of the package", total, [], "Merge what stands twice.")
