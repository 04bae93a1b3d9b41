"""Progress of a long phase, from the code that does the work to whoever watches the run.

A run without a sign of life for `engine.stall_seconds` is killed. So code that takes long calls `report`
between two pieces of its work; it need not know that a run exists. What cannot report from inside, such as a
compile, runs within `opaque`, which reports in its place, but only up to a limit: a hang is found as well,
`engine.stall_seconds` after it. Receivers belong to a thread: each run of a process has its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

OPAQUE_SECONDS = 3600.0
"""Default of `engine.opaque_seconds`."""
BEAT_SECONDS = 1.0
"""Seconds between two reports of an opaque phase."""

Beat = Callable[[str], None]
"""Receiver of a sign of life, with what is being done and how far it is."""


@dataclass(frozen=True)
class _Receiver:
    beat: Beat
    opaque_seconds: float


_receiver: ContextVar[_Receiver | None] = ContextVar("receiver", default=None)


@contextmanager
def reports_to(beat: Beat, opaque_seconds: float | None = None) -> Iterator[None]:
    """Send the reports of this thread to `beat`. `opaque_seconds`: limit of a phase that cannot report; None:
    as around this block."""
    outer = _receiver.get()
    limit = opaque_seconds or (outer.opaque_seconds if outer else OPAQUE_SECONDS)
    token = _receiver.set(_Receiver(beat, limit))
    try:
        yield
    finally:
        _receiver.reset(token)


def report(activity: str, amount: float = 0.0, total: float = 0.0) -> None:
    """Report that work goes on, and how far it is if `total` is known. Does nothing without a receiver."""
    if receiver := _receiver.get():
        receiver.beat(f"{activity}, {min(amount / total, 1.0):.0%}" if total else activity)


@contextmanager
def opaque(activity: str) -> Iterator[None]:
    """Report in place of work that cannot, until it ends or takes longer than the limit."""
    receiver, end = _receiver.get(), threading.Event()
    if receiver is None:
        yield
        return
    args = (receiver, activity, end)
    thread = threading.Thread(target=_beat_until, args=args, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _beat_until(receiver: _Receiver, activity: str, end: threading.Event) -> None:
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < receiver.opaque_seconds:
        receiver.beat(f"{activity}, {elapsed:.0f} s of at most {receiver.opaque_seconds:.0f}")
        if end.wait(min(BEAT_SECONDS, receiver.opaque_seconds)):
            return
