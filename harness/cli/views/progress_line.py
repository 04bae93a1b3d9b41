"""Line of progress on the standard error: in place on a terminal, and now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.core.number_format import plain_text

LINE_SECONDS = 10.0
"""Seconds between two lines where the output is not a terminal."""
REDRAW_SECONDS = 0.2


class ProgressLine:
    """The line, until the `with` block ends: then it is gone from a terminal."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._pause = REDRAW_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._next = clock() + (0.0 if self._console.is_terminal else LINE_SECONDS)

    def __enter__(self) -> ProgressLine:
        """Begin."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line from a terminal."""
        if self._console.is_terminal:
            self._live.stop()

    def show(self, text: str) -> None:
        """Show how far the work is. Most calls do nothing: it may be called often."""
        if (now := self._clock()) < self._next:
            return
        self._next = now + self._pause
        if self._console.is_terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(plain_text(text), markup=False, highlight=False, soft_wrap=True)
