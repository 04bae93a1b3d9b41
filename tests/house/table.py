"""All measures together, for the whole package or one room."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.house import imports, names, prose, sizes
from tests.house.limits import LIMITS
from tests.house.measure import Measure
from tests.house.source import HARNESS, SourceFile, load

BETWEEN_FILES: tuple[Callable[[list[SourceFile]], Measure], ...] = (
    imports.measure_circles,
    imports.measure_arrows,
    imports.measure_sub_arrows,
    sizes.measure_repeated_files,
    sizes.measure_repeated_classes,
)
"""Measures that need every file, even if one room is asked for."""

IN_FILES: tuple[Callable[[list[SourceFile]], Measure], ...] = (
    sizes.measure_folders,
    prose.measure_openings,
    names.measure_names,
    prose.measure_missing,
    sizes.measure_long_functions,
    sizes.measure_long_files,
    sizes.measure_lines,
)


@cache
def measures(room: str | None = None, root: Path = HARNESS) -> dict[str, Measure]:
    """Measure the package, or one room of it."""
    files = load(root)
    inside = [file for file in files if room in (None, file.room)]
    rows = [_only(measure(files), room) for measure in BETWEEN_FILES]
    rows += [measure(inside) for measure in IN_FILES]
    by_key = {row.key: row for row in rows}
    return {key: by_key[key] for key in LIMITS}


def _only(row: Measure, room: str | None) -> Measure:
    """Keep what touches a room. The value becomes the number of distinct names that remain."""
    if room is None:
        return row
    findings = [found for found in row.findings if room in found.rooms]
    return replace(row, findings=findings, value=len({found.name for found in findings}))


def within_limit(row: Measure) -> bool:
    """Say whether a measure keeps its limit."""
    return row.value <= LIMITS[row.key]


def as_text(rows: dict[str, Measure]) -> str:
    """Lay out today's values beside their limits."""
    lines = [f"{'measure':<52}{'today':>18}{'limit':>12}"]
    for row in rows.values():
        limit = f"{LIMITS[row.key]:,g}" if row.unit else f"{LIMITS[row.key]:,.0f}"
        limit = "-" if math.isinf(LIMITS[row.key]) else f"{limit} {row.unit}".rstrip()
        mark = "" if within_limit(row) else "  over"
        lines.append(f"{row.title:<52}{row.shown_value:>18}{limit:>12}{mark}")
    return "\n".join(lines)
