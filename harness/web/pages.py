"""Pages of a server: one sweep, or a folder and each sweep in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from harness.web.feed_thread import Feed, FeedThread
from harness.web.page_state import PageState

LAST_READING_SECONDS = 5.0
"""Seconds that a reading may still take when the pages are closed."""
SWEEP = "sweep"
"""First part of the addresses of the sweeps in a folder."""


class Pages:
    """Pages by the parts of their addresses, each with a thread that reads for it once it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_folder = is_folder(path)
        self._feeds: dict[tuple[str, ...], Feed] = {}
        self._threads: list[FeedThread] = []
        self._lock = threading.Lock()

    def is_folder(self, page: Sequence[str]) -> bool:
        """Return whether a page lists sweeps."""
        return self._is_folder and not page

    def has(self, page: Sequence[str]) -> bool:
        """Return whether there is such a page: the first one, or a sweep that lies in the folder."""
        if not page or tuple(page) in self._feeds:
            return True
        return self._is_folder and len(page) == 2 and page[0] == SWEEP and page[1] in self._names()

    def open(self, page: Sequence[str]) -> PageState:
        """Return the state of a page that there is, and begin to read for it."""
        from harness.web.folder_feed import FolderFeed
        from harness.web.sweep_feed import SweepFeed

        with self._lock:
            feed = self._feeds.get(tuple(page))
            if feed is None:
                place = self._path / page[1] if page else self._path
                feed = FolderFeed(place) if self.is_folder(page) else SweepFeed(place)
                self._feeds[tuple(page)] = feed
                self._threads.append(FeedThread(feed))
                self._threads[-1].start()
        return feed.state

    def close(self) -> None:
        """End all streams and threads: one that reads while Python ends could end it with an error."""
        with self._lock:
            for feed in self._feeds.values():
                feed.state.close()
            for thread in self._threads:
                thread.join(LAST_READING_SECONDS)

    def _names(self) -> set[str]:
        """Return the names of the sweeps in the folder. No other name becomes part of a path."""
        return {file.parent.name for file in self._path.glob("*/rule.json")}


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder of sweeps, and not a sweep, also one that has not begun."""
    from harness.records.paths import SweepDir

    sweep = SweepDir(path)
    return path.is_dir() and not sweep.rule.exists() and not any(sweep.runs())
