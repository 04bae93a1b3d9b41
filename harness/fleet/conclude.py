"""The end of a sweep: compare, print the verdict, write the report if it would say something new."""

from __future__ import annotations

from rich.console import Console

from harness.records import atomic
from harness.records.layout import SweepDir


def conclude(sweep: SweepDir, console: Console) -> None:
    """Write comparison.json and report.html, and print the verdict."""
    from harness.compare import compare
    from harness.compare.results import dumps
    from harness.report import print_comparison, write_report

    comparison = compare(sweep)
    changed = write_if_new(sweep, dumps(comparison))
    print_comparison(comparison, console)
    if changed or _stale(sweep):
        write_report(sweep, comparison)
    console.print(f"{sweep.report}", markup=False, highlight=False, soft_wrap=True)


def write_if_new(sweep: SweepDir, text: str) -> bool:
    """Whether comparison.json had to be written."""
    if sweep.comparison.exists() and sweep.comparison.read_text() == text:
        return False
    atomic.write_text(sweep.comparison, text)
    return True


def _stale(sweep: SweepDir) -> bool:
    """A report older than the comparison, or none: a kill came in between."""
    return not sweep.report.exists() or sweep.report.stat().st_mtime_ns < sweep.comparison.stat().st_mtime_ns
