"""A worker that trains nothing: it writes what a worker writes, quickly, and fails on demand.

`faults.json` in the sweep: {run name: {"at": step, "do": "raise" | "kill" | "hang" | "exit" | "diverge"
| "refuse" | "leave" | "hold", "times": n}}; what is held goes on when the file is gone. Turns and restarts
are a real worker's. Each run's rows are a function of its seed and step, so a curve that was put together
from many attempts can be compared with one that was never interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from harness.config.worker_options import from_env
from harness.core import atomic_files
from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest, metrics
from harness.records.run.config_file import read_config
from harness.records.run.example_hash import write_examples
from harness.records.run.provenance import read_provenance
from harness.records.run.run_lock import ALREADY_RUNNING, acquire
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from harness.worker.scheduler import DeviceAllocation, RunScheduler, ScheduledRun

EVERY = 5


def main(argv: list[str], env: dict[str, str]) -> int:
    os.environ.update(env)
    stop, terms = threading.Event(), from_env(os.environ)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())
    for run in map(RunDir, map(Path, argv)):
        if (fault := _fault(run)) and fault["at"] == 0 and _due(run, fault):
            _misbehave(fault["do"], Status())
    turns = [ScheduledRun(run, _block(run), _width(run)) for run in (RunDir(Path(path)) for path in argv)]
    states = RunScheduler(turns, terms.devices or len(turns), _lane, terms, stop).run_all(time.time())
    return 0 if all(state.is_final for state in states) else 3


def _block(run: RunDir) -> str:
    return f"{run.path.parent.parent.name}/{run.path.name}"


def _width(run: RunDir) -> int:
    return read_config(run.config).mesh.devices


def _lane(turn: ScheduledRun, lease: DeviceAllocation) -> State:
    run, stop = turn.run, lease.stop
    attempt = read_status(run).attempt + 1
    with (run.path / "attempts.txt").open("a") as file:
        file.write(f"{os.getpid()}:{lease.first_device}\n")
    status = Status(State.running, attempt=attempt, writer=ProcessInfo.current(), phase="start")
    try:
        status = _train(run, status, stop)
    except Exception as error:
        status = replace(read_status(run), state=State.failed, message=str(error))
    write_status(run, status)
    return status.state


def _train(run: RunDir, status: Status, stop: threading.Event) -> Status:
    record = read_provenance(run)
    assert record is not None
    steps, fault = record.facts.steps, _fault(run)
    whole = metrics.complete_until(run)[0]
    start = max((step for step in checkpoint_manifest.valid_steps(run)[0] if step <= whole), default=0)
    metrics.truncate_after(run, start)
    rows: list[dict] = []
    for step in range(start + 1, steps + 1):
        time.sleep(float(os.environ.get("FAKE_PACE", "0.01")))
        rows.append(row(record.seed, record.variant, step))
        status = replace(status, phase="train", step=step, steps=steps, progress=step, loss=rows[-1]["loss"])
        write_status(run, status)
        while fault and step == fault["at"] and fault["do"] == "hold" and _fault(run) and not stop.is_set():
            time.sleep(0.02)
        if fault and step == fault["at"] and fault["do"] != "hold" and _due(run, fault):
            _seal(run, step, rows if fault["do"] == "diverge" else [])
            return _misbehave(fault["do"], status)
        if step % EVERY == 0 or step == steps or stop.is_set():
            _seal(run, step, rows)
            _save(run, step, record.identity)
            rows = []
        if stop.is_set() and step < steps:
            return replace(status, state=State.preempted)
    if metrics.complete_until(run)[0] < steps:
        raise RuntimeError("the curve was damaged")
    write_examples(run, steps, f"examples up to {steps}")
    return replace(status, state=State.finished, step=steps, steps=steps)


def _seal(run: RunDir, step: int, rows: list[dict]) -> None:
    if rows:
        metrics.write_part(run, "steps", step - len(rows), step, rows)
        metrics.write_part(run, "evals", step - len(rows), step, [])


def _save(run: RunDir, step: int, identity: str) -> None:
    """A checkpoint of one file."""
    run.checkpoint(step).mkdir(parents=True, exist_ok=True)
    (run.checkpoint(step) / "state").write_text(f"state of step {step}" * 10)
    made = checkpoint_manifest.Manifest(step, identity, "d", f"examples up to {step}", 0.0, {})
    checkpoint_manifest.write_manifest(run, made)
    for old in checkpoint_manifest.manifest_steps(run)[:-2]:
        checkpoint_manifest.remove_checkpoint(run, old)


def row(seed: int, variant: str, step: int) -> dict:
    loss = 5.0 / step + seed * 0.01 + len(variant) * 0.001
    return dict.fromkeys(metrics.STEPS, 0) | {"step": step, "tokens": step * 10, "loss": loss}


def _fault(run: RunDir) -> dict | None:
    faults = atomic_files.read_json(run.path.parents[2] / "faults.json") or {}
    return faults.get("/".join(run.path.parts[-3:]))


def _due(run: RunDir, fault: dict) -> bool:
    """Whether the fault has not yet happened as often as it should."""
    mark = run.path / "faults.txt"
    count = len(mark.read_text()) if mark.exists() else 0
    if count >= fault.get("times", 1):
        return False
    with mark.open("a") as file:
        file.write("x")
    return True


def _misbehave(what: str, status: Status) -> Status:
    if what == "raise":
        raise RuntimeError("a fault on demand")
    if what == "leave":
        return replace(status, state=State.preempted, message="asked to leave")
    if what == "diverge":
        return replace(status, state=State.diverged, message="the loss is not finite")
    if what == "refuse":
        return replace(status, state=State.refused, message="too large")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(7)
    if what == "hang":
        time.sleep(3600)
    raise AssertionError(what)


if __name__ == "__main__":
    if not all(acquire(RunDir(Path(run)).worker_lock) for run in sys.argv[1:]):
        sys.exit(ALREADY_RUNNING)
    sys.exit(main(sys.argv[1:], {}))
