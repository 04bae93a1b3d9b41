"""Request to stop a sweep: every run saves and its worker leaves."""

from __future__ import annotations

import os
import signal

from harness.core.errors import UserError
from harness.launcher.engines.ray.ray_engine import stop_workers
from harness.launcher.engines.slurm.slurm_engine import stop_jobs
from harness.records.paths import SweepDir
from harness.records.run.run_lock import owner, worker_of
from harness.records.run.status import ProcessInfo


def stop_sweep(sweep: SweepDir) -> str:
    """Tell the driver to stop, or the workers if there is no driver. Returns a sentence about who was told.
    Raises UserError for a process of another host."""
    driver = owner(sweep.driver_lock)
    if driver is not None:
        _terminate(driver)
        return f"the driver (process {driver.pid}) was told to stop; it waits until every run has saved"
    workers = {writer for run in sweep.runs() if (writer := worker_of(run)) is not None}
    logs = sweep.path / "workers"
    remote = {"job{} of Slurm": stop_jobs(logs), "worker{} in Ray": stop_workers(logs)}
    counts = {name: count for name, count in remote.items() if count}
    local = [worker for worker in workers if not counts or worker.alive() is not None]
    for worker in local:
        _terminate(worker)
    counts = counts or ({"worker{}": len(local)} if local else {})
    if not counts:
        return f"no worker of {sweep.path} is running"
    names = " and ".join(f"{n} {name.format('' if n == 1 else 's')}" for name, n in counts.items())
    return f"{names} {'was' if sum(counts.values()) == 1 else 'were'} told to save and leave"


def _terminate(writer: ProcessInfo) -> None:
    if writer.alive() is None:
        raise UserError(f"Process {writer.pid} runs on {writer.host}. Stop it there.")
    if writer.pid and writer.alive():
        os.kill(writer.pid, signal.SIGTERM)
