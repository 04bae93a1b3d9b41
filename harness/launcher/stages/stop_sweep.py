"""Request to stop a sweep: every run saves and its worker leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from harness.core.errors import UserError
from harness.launcher.engines.ray.ray_engine import stop_workers
from harness.launcher.engines.slurm.slurm_engine import stop_jobs
from harness.records.paths import SweepDir
from harness.records.run.run_lock import owner, worker_of
from harness.records.run.status import ProcessInfo
from harness.records.sweep.stop_request import remove_request, wait_for_answer, write_request

ANSWER_SECONDS = 60.0
"""Seconds within which a driver answers. A network file system shows it a new file after up to 30 s."""


def stop_sweep(sweep: SweepDir, note: Callable[[str], None], answer_seconds: float = ANSWER_SECONDS) -> str:
    """Tell the driver to stop, or the workers if there is no driver. Returns a sentence about who was told.
    Raises UserError if one of them was not told, saying how to reach it."""
    driver = owner(sweep.driver_lock)
    if driver is not None:
        if _signal(driver) or _request(sweep, driver, note, answer_seconds):
            return f"the driver ({_name(driver)}) was told to stop; it waits until every run has saved"
        return (
            f"the driver ({_name(driver)}) ended by itself just now; `harness stop` again tells its workers"
        )
    return _stop_workers(sweep)


def _request(sweep: SweepDir, driver: ProcessInfo, note: Callable[[str], None], seconds: float) -> bool:
    """Ask a driver that no signal reaches through a file. Returns False if it ends before it answers. Raises
    UserError if it does not answer."""
    way_out = f"Stop it where it runs{f': `kill -TERM {driver.pid}` on {driver.host}' if driver.pid else ''}."
    try:
        request = write_request(sweep)
    except OSError as error:
        problem = f"its request, {sweep.stop_request}, cannot be written ({error.strerror})"
        raise UserError(f"The driver ({_name(driver)}) was not told: {problem}. {way_out}") from error
    note(f"the driver ({_name(driver)}) cannot be signalled from here; waiting for its answer to a request")
    deadline = time.monotonic() + seconds

    def is_over() -> bool:
        return time.monotonic() > deadline or owner(sweep.driver_lock) != driver

    if wait_for_answer(sweep, request, is_over):
        return True
    if owner(sweep.driver_lock) != driver:
        remove_request(sweep)
        return False
    raise UserError(
        f"The driver ({_name(driver)}) has not answered for {seconds:g} s. It stops when it reads "
        f"{sweep.stop_request}. {way_out}"
    )


def _stop_workers(sweep: SweepDir) -> str:
    workers = {writer: run for run in sweep.runs() if (writer := worker_of(run)) is not None}
    logs = sweep.path / "workers"
    remote = {"job{} of Slurm": stop_jobs(logs), "worker{} in Ray": stop_workers(logs)}
    counts = {name: count for name, count in remote.items() if count}
    local = [worker for worker in workers if not counts or worker.alive() is not None]
    unreached_workers = [worker for worker in local if not _signal(worker)]
    if len(local) > len(unreached_workers):
        counts["worker{}"] = len(local) - len(unreached_workers)
    names = " and ".join(f"{n} {name.format('' if n == 1 else 's')}" for name, n in counts.items())
    sentence = f"{names} {'was' if sum(counts.values()) == 1 else 'were'} told to save and leave"
    if unreached_workers:
        worker = unreached_workers[0]
        more_text = f" and {len(unreached_workers) - 1} more" if len(unreached_workers) > 1 else ""
        raise UserError(
            f"{_name(worker)}, which trains {workers[worker].path}{more_text}, was not told: it "
            "runs on another machine, in another container, or for another user. "
            f"Run `kill -TERM {worker.pid}` there." + (f" {sentence}." if counts else "")
        )
    return sentence if counts else f"no worker of {sweep.path} is running"


def _name(process: ProcessInfo) -> str:
    return f"process {process.pid} on {process.host}" if process.pid else "a process without a name"


def _signal(process: ProcessInfo) -> bool:
    """Send SIGTERM to a process that is seen from here. Returns whether it was sent."""
    if not (process.pid and process.alive()):
        return False
    try:
        os.kill(process.pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return False
    return True
