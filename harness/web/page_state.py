"""State of a page: the latest value of each key, which browsers receive when it changes."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

DIGITS = 6
"""Significant digits of numbers that are sent."""


@dataclass(frozen=True)
class Change:
    """Value of a key, as JSON, with the version of the state since which it stands."""

    key: str
    content: str
    version: int


class PageState:
    """Latest values by key. A browser that was away receives each changed value once, however long it was.

    Nothing is queued for a browser, so one that sleeps costs no memory. Any thread may call the methods.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._changes: dict[str, Change] = {}
        self._version = 0
        self._readers = 0
        self.is_closed = False

    def put(self, key: str, value: Any) -> bool:
        """Set the value of a key, None to remove it from the page; return whether it differs from before."""
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        with self._condition:
            old = self._changes.get(key)
            if content == (old.content if old else "null"):
                return False
            self._version += 1
            self._changes[key] = Change(key, content, self._version)
            self._condition.notify_all()
            return True

    def wait(self, version: int, seconds: float) -> list[Change]:
        """Return the changes after a version, oldest first, as soon as there are any; else [] in time."""
        with self._condition:
            self._condition.wait_for(lambda: self._version > version or self.is_closed, seconds)
            changes = [change for change in self._changes.values() if change.version > version]
        return sorted(changes, key=lambda change: change.version)

    def value(self, key: str) -> Any:
        """Return the value of a key; None if it has none."""
        with self._condition:
            change = self._changes.get(key)
        return None if change is None else json.loads(change.content)

    @property
    def version(self) -> int:
        """Number of changes so far."""
        return self._version

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the state is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self.is_closed, seconds)

    def close(self) -> None:
        """End the waiting of all browsers."""
        with self._condition:
            self.is_closed = True
            self._condition.notify_all()

    def join(self) -> None:
        """Count a browser that reads this state."""
        with self._condition:
            self._readers += 1
            self._condition.notify_all()

    def leave(self) -> None:
        """Count off a browser."""
        with self._condition:
            self._readers -= 1

    def wait_for_reader(self, seconds: float) -> bool:
        """Wait until a browser reads this state; return whether one does, or the state is closed."""
        with self._condition:
            return self._condition.wait_for(lambda: self._readers > 0 or self.is_closed, seconds)


def json_numbers(values: Any) -> list[float | int | None]:
    """Return a column as a list for JSON: rounded to `DIGITS` digits, None where it is not finite."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.tolist()
    array = array.astype(float)
    finite = np.isfinite(array)
    return [float(f"{x:.{DIGITS}g}") if ok else None for x, ok in zip(array.tolist(), finite, strict=True)]
