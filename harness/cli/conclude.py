"""The end of a sweep: compare its runs, print the verdict, and write the report if anything changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.core import atomic_files
from harness.records.paths import SweepDir

if TYPE_CHECKING:
    from harness.compare.inputs.noise_floor import LibraryEntry


CONCLUDED: list[SweepDir] = []
"""Sweeps that this process has concluded, the last one last."""


def conclude(sweep: SweepDir, console: Console) -> None:
    """Print the verdict. Write comparison.json if more than wall-clock times changed, and then report.html,
    also if it is missing or older than comparison.json (after a kill between the two)."""
    from harness.compare import compare, store_library
    from harness.compare.results.to_json import dumps
    from harness.report.tables.terminal import print_comparison

    comparison = compare(sweep)
    floors = store_library(sweep, comparison.rule.control, comparison.rule.domains)
    stored = atomic_files.read_json(sweep.comparison)
    wall_clock: dict[str, Any] = {"times": {}}
    content = json.loads(dumps(comparison)) | wall_clock
    changed = not isinstance(stored, dict) or stored | wall_clock != content
    if changed:
        atomic_files.write_text(sweep.comparison, dumps(comparison))
    print_comparison(comparison, console)
    CONCLUDED.append(sweep)
    report = sweep.report
    if changed or not report.exists() or report.stat().st_mtime_ns < sweep.comparison.stat().st_mtime_ns:
        from harness.report.page.render import write_report  # the plotting stack costs a second to import

        write_report(sweep, comparison)
    unit = comparison.loss_unit.partition(" a ")[0]
    for line in [*(_noise_floor_text(entry, unit) for entry in floors), f"{sweep.report}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _noise_floor_text(entry: LibraryEntry, unit: str) -> str:
    """Describe a noise floor, which sweeps in the same folder will use."""
    correlation = "" if entry.correlation is None else f", correlation over orders {entry.correlation:.2f}"
    noise = f"{entry.s0:.4f} {unit} (SD, df {entry.df:g}{correlation})"
    return f"{entry.scale}: two seeds of one variant on one order of data differ by {noise}"
