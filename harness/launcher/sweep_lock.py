"""Being the one driver of a sweep: its lock, what signals mean, and no trace of a sweep that never began."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.core import atomic_files
from harness.core.errors import UserError, disk_error
from harness.records.paths import SweepDir
from harness.records.run.run_lock import acquire, owner, release, release_and_remove


class Interrupted(Exception):
    """The user asked to leave; every worker saved, or was told to."""


@contextmanager
def hold_sweep_lock(sweep: SweepDir) -> Iterator[None]:
    """One driver a sweep. Raises UserError naming the other one, or where nothing can be written. What fails
    before anything of the sweep is written leaves no trace."""
    with atomic_files.remove_new_dirs_on_error(sweep.path), _held(sweep):
        yield


@contextmanager
def _held(sweep: SweepDir) -> Iterator[None]:
    new = not sweep.lock.exists()
    try:
        if not acquire(sweep.lock, patience=0.2):
            other = owner(sweep.lock)
            who = f"process {other.pid} on {other.host}" if other and other.pid else "another process"
            raise UserError(f"{sweep.path} is driven by {who}: wait for it, or end it; its runs would go on")
        atomic_files.remove_temp_files(sweep.path)
        yield
    except BaseException as error:
        if new:
            release_and_remove(sweep.lock)
        if isinstance(error, OSError) and (trouble := disk_error(error, sweep.path)):
            raise trouble from error
        raise
    finally:
        release(sweep.lock)


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Ctrl-C and SIGTERM while nothing is at work yet: what is within undoes what it began."""

    def leave(*_) -> None:
        raise Interrupted

    with handle_signals(leave):
        yield


@contextmanager
def handle_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM, for a while."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
