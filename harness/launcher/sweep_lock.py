"""Lock of a sweep, which only one driver holds, and its signal handlers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.core import atomic_files
from harness.core.errors import UserError, disk_error
from harness.records.paths import SweepDir
from harness.records.run.run_lock import acquire, owner, release, release_and_remove
from harness.records.sweep.stop_request import obey_requests


class Interrupted(Exception):
    """The user interrupted the launch. Every worker has saved, or was told to."""


@contextmanager
def hold_sweep_lock(sweep: SweepDir) -> Iterator[None]:
    """Hold the lock of a sweep, and take a request to stop as SIGTERM. A failure before the first record
    removes every new file and folder. Raises UserError if another driver holds it, naming that one, or if the
    folder cannot be written."""
    with atomic_files.remove_new_dirs_on_error(sweep.path):
        new = not sweep.driver_lock.exists()
        try:
            if not acquire(sweep.driver_lock, wait_seconds=0.2):
                name, driver = "another process", owner(sweep.driver_lock)
                if driver and driver.pid:
                    name = f"process {driver.pid} on {driver.host}"
                raise UserError(
                    f"{sweep.path} is already being run by {name}. Wait for it, or stop it (its runs keep "
                    "going)."
                )
            atomic_files.remove_temp_files(sweep.path)
            with obey_requests(sweep, lambda: os.kill(os.getpid(), signal.SIGTERM)):
                yield
        except BaseException as error:
            if new:
                release_and_remove(sweep.driver_lock)
            if isinstance(error, OSError) and (user_error := disk_error(error, sweep.path)):
                raise user_error from error
            raise
        finally:
            release(sweep.driver_lock)


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Raise Interrupted on Ctrl-C and SIGTERM, before any worker runs. The body undoes what it began."""

    def leave(*_) -> None:
        raise Interrupted

    with handle_signals(leave):
        yield


@contextmanager
def handle_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Call `handler` on Ctrl-C and SIGTERM while the body runs."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)
