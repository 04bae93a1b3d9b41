"""Progress of a sweep that was started from Python: one live display in a notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from html import escape
from pathlib import Path
from typing import Any, Protocol

from harness.core.number_format import format_clock, plain_text
from harness.records.paths import SweepDir
from harness.report.frames.sweep_progress import ProgressReader, SweepProgress
from harness.report.page.notebook import html_table
from harness.report.tables.progress_tables import running_table, summary_text
from harness.report.tables.text_table import Table

DRAW_SECONDS = 0.9
"""Seconds between two drawings, at least."""
MAX_RUNS = 8
"""Number of running runs that are shown, at most."""


class ProgressDisplay(Protocol):
    """Receiver of what a sweep prints and of the time that passes."""

    def follow(self, path: str) -> None:
        """Name the folder of the sweep, from which progress can be read."""
        ...

    def show(self, line: str) -> None:
        """Show a line of the command."""
        ...

    def refresh(self) -> None:
        """Read the progress again. Called about once a second."""
        ...

    def close(self, end: str) -> None:
        """Show how the sweep ended: finished, not finished or stopped."""
        ...


class PlainDisplay:
    """Progress as the lines that the command prints."""

    def follow(self, path: str) -> None:
        """Ignore the folder: the lines say all."""

    def show(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)

    def refresh(self) -> None:
        """Show nothing: the command prints its own progress."""

    def close(self, end: str) -> None:
        """Leave the lines as they are."""


class NotebookDisplay:
    """Progress in one output of a notebook, which is drawn again each second."""

    def __init__(self) -> None:
        """Show that the sweep is being prepared."""
        from IPython.display import display

        self._begin, self._last_line = time.monotonic(), "preparing the sweep"
        self._reader: ProgressReader | None = None
        self._drawn_at = self._begin
        self._handle: Any = display(_bundle(self._last_line), raw=True, display_id=True)

    def follow(self, path: str) -> None:
        """Read progress from the folder of the sweep from now on."""
        self._reader = ProgressReader(SweepDir(Path(path)))

    def show(self, line: str) -> None:
        """Keep the line, which stands below the runs."""
        self._last_line = line.strip() or self._last_line

    def refresh(self) -> None:
        """Draw the running runs and the line that was printed last, unless that was done just now."""
        if time.monotonic() - self._drawn_at < DRAW_SECONDS:
            return
        self._drawn_at = time.monotonic()
        progress = self._read()
        if progress is None or not progress.runs:
            self._draw(_bundle(self._last_line))
            return
        line = f"{plain_text(progress.name)}: {summary_text(progress)}"
        table = running_table(progress.running[:MAX_RUNS], progress.control)
        self._draw(_bundle(line, table, self._last_line, progress.done_share))

    def close(self, end: str) -> None:
        """Replace the progress by one line."""
        progress, elapsed = self._read(), format_clock(time.monotonic() - self._begin)
        if progress is None or not progress.runs:
            self._draw(_bundle(f"{end} after {elapsed}"))
            return
        count = f"{len(progress.ended)} of {len(progress.runs)} runs have ended"
        self._draw(_bundle(f"{plain_text(progress.name)}: {end}; {count}, after {elapsed}"))

    def _read(self) -> SweepProgress | None:
        return self._reader and self._reader.read(time.time())

    def _draw(self, bundle: dict[str, str]) -> None:
        self._handle.update(bundle, raw=True)


def make_display() -> ProgressDisplay:
    """Return the display for the kernel of a notebook, or the one for anything else."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return NotebookDisplay() if hasattr(shell, "kernel") else PlainDisplay()


def _bundle(
    line: str, runs: Table | None = None, note: str = "", share: float | None = None
) -> dict[str, str]:
    """Return a display as plain text and as HTML: a bar, a line, the running runs, and a note."""
    bar = "" if share is None else f'<progress value="{share:.4f}" style="width: 100%"></progress>'
    below = f'<p style="opacity: 0.7">{escape(plain_text(note))}</p>' if note else ""
    table = html_table(runs) if runs else ""
    return {"text/plain": line, "text/html": f"{bar}<p>{escape(line)}</p>{table}{below}"}
