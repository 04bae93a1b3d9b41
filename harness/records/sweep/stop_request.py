"""Request to stop a sweep, `stop.json`, which its driver reads and answers.

A signal reaches a driver only from its own machine, user and PID namespace. The request reaches it wherever
the folder of the sweep is seen: from another container, another user of a shared folder, another host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import SweepDir
from harness.records.typed_values import fields_fit

CHECK_SECONDS = 0.5
"""Seconds between two looks of a driver for a request."""


@dataclass(frozen=True)
class StopRequest:
    """Content of `stop.json`."""

    token: str
    """Unique name of the request."""
    is_answered: bool = False
    """True once the driver has read it; it stops."""


def write_request(sweep: SweepDir) -> StopRequest:
    """Ask the driver of a sweep to stop. Raises OSError if the folder cannot be written."""
    request = StopRequest(secrets.token_hex(8))
    _write(sweep, request)
    return request


def wait_for_answer(sweep: SweepDir, request: StopRequest, is_over: Callable[[], bool]) -> bool:
    """Return whether the driver answers before `is_over`. An answered request is removed."""
    answer = dataclasses.replace(request, is_answered=True)
    while (is_answered := _read(sweep) == answer) is False and not is_over():
        time.sleep(CHECK_SECONDS / 5)
    if is_answered:
        remove_request(sweep)
    return is_answered


def remove_request(sweep: SweepDir) -> None:
    """Remove the request of a sweep, as the next driver does, which it does not concern."""
    sweep.stop_request.unlink(missing_ok=True)


@contextmanager
def obey_requests(sweep: SweepDir, stop: Callable[[], None]) -> Iterator[None]:
    """Answer requests while the body runs, and call `stop`, in a thread, after each answer."""
    body_ended = threading.Event()

    def obey() -> None:
        while not body_ended.wait(CHECK_SECONDS):
            request = _read(sweep)
            if request is not None and not request.is_answered:
                with contextlib.suppress(OSError):  # a full disk: without an answer, but it stops
                    _write(sweep, dataclasses.replace(request, is_answered=True))
                stop()

    remove_request(sweep)
    threading.Thread(target=obey, daemon=True).start()
    try:
        yield
    finally:
        body_ended.set()


def _write(sweep: SweepDir, request: StopRequest) -> None:
    write_checksummed_json(sweep.stop_request, dataclasses.asdict(request))


def _read(sweep: SweepDir) -> StopRequest | None:
    """Return the request; None if there is none or it is damaged."""
    record = read_checksummed_json(sweep.stop_request)
    try:
        request = StopRequest(**record) if record else None
    except TypeError:
        return None
    return request if request and fields_fit(request) else None
