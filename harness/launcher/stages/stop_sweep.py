"""Asking a sweep to stop: every run saves and leaves."""

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
    """Tell the driver if there is one, else the workers. Returns in one sentence what was told."""
    driver = owner(sweep.lock)
    if driver is not None:
        _terminate(driver)
        return f"the driver (process {driver.pid}) was told; it waits until every run has saved"
    workers = {writer for run in sweep.runs() if (writer := worker_of(run)) is not None}
    logs = sweep.path / "workers"
    elsewhere = {"job{} of Slurm": stop_jobs(logs), "worker{} in Ray": stop_workers(logs)}
    told = {what: count for what, count in elsewhere.items() if count}
    here = [worker for worker in workers if not told or worker.alive() is not None]
    for worker in here:
        _terminate(worker)
    told = told or ({"worker{}": len(here)} if here else {})
    if not told:
        return "nothing is running there"
    whom = " and ".join(f"{count} {what.format('' if count == 1 else 's')}" for what, count in told.items())
    return f"{whom} {'was' if sum(told.values()) == 1 else 'were'} told to save and leave"


def _terminate(writer: ProcessInfo) -> None:
    if writer.alive() is None:
        raise UserError(f"process {writer.pid} runs on {writer.host}: stop it there")
    if writer.pid and writer.alive():
        os.kill(writer.pid, signal.SIGTERM)
