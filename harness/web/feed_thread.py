"""Thread that reads for all browsers of a page, at a pace that leaves the cores to the runs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Protocol

from harness.core.number_format import plain_text
from harness.web.page_state import PageState

REFRESH_SECONDS = 1.0
"""Seconds between two readings, at least."""
BUSY_SHARE, IDLE_SHARE = 0.1, 0.008
"""Shares of a core for reading while values change, and while none did for `IDLE_AFTER` readings."""
IDLE_AFTER = 3
UNREADABLE, RETRY_SECONDS = "This cannot be read at the moment, and is tried again", 5.0
"""Beginning of the sentence about a reading that failed, and seconds until the next one."""
ABSENT_SECONDS = 3600.0
"""Longest wait for a browser, after which the thread only waits again."""


class Feed(Protocol):
    """Reader of what a page shows."""

    state: PageState

    def update(self, now: float) -> bool:
        """Read what changed; return whether there is more to read at once."""
        ...


class FeedThread(threading.Thread):
    """Thread that updates a feed as long as a browser looks at its page, and once at the start."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(daemon=True)
        self._feed = feed
        self._unchanged = 0

    def run(self) -> None:
        """Update until the state is closed."""
        state, is_first = self._feed.state, True
        while not state.is_closed:
            if not is_first and not state.wait_for_reader(ABSENT_SECONDS):
                continue
            is_first = False
            if not state.is_closed:
                with suppress(
                    KeyboardInterrupt
                ):  # Polars raises Ctrl-C here too; the main thread ends the page
                    state.pause(self._update())

    def _update(self) -> float:
        """Update once; return the seconds to wait before the next time."""
        state, version, start = self._feed.state, self._feed.state.version, time.thread_time()
        try:
            has_more = self._feed.update(time.time())
        except Exception as error:  # a folder that is being deleted, or damaged: the page goes on
            state.put("notice", {"kind": "waiting", "text": f"{UNREADABLE}: {plain_text(error)}"})
            return RETRY_SECONDS
        if has_more:
            return 0.0
        self._unchanged = 0 if state.version != version else self._unchanged + 1
        share = IDLE_SHARE if self._unchanged >= IDLE_AFTER else BUSY_SHARE
        return max(REFRESH_SECONDS, (time.thread_time() - start) / share)
