"""Run directories before a worker enters: created, continued, started over, or left alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

from harness.config.pair_check import identity_difference
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher.runs import Run
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import checksum_ok, contains_node, read_config, write_config
from harness.records.run.integrity import find_damage, remove_partial_files
from harness.records.run.provenance import (
    Provenance,
    code_of,
    identity_of,
    package_versions,
    read_provenance,
    write_provenance,
)
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, Status, read_status, write_status
from harness.records.sweep import ledger

THREADS = 16
"""Directories that are made at a time."""


class RunAction(Enum):
    """What is to be done with a run."""

    skip = "stands"
    """It has an outcome, and its records are whole."""
    follow = "alive"
    """A worker has it."""
    train = "train"


def check_identities(runs: Sequence[Run]) -> None:
    """Raises UserError where a path holds another run. Writes nothing."""
    for run in runs:
        stored = read_provenance(run.dir)
        if stored is not None and stored.identity != identity_of(run.config, run.facts):
            raise UserError(
                f"{run.dir.path} holds another run: {_how_it_differs(run, stored)}; "
                "choose another experiment_name=..., or move that folder away"
            )


def create_new(runs: Sequence[Run]) -> set[str]:
    """Make the directories of runs that have none, as `prepare` would. Returns the names of these runs.

    Each file is on the disk before it has its name, and `run.json` has it last; but a disk takes many files
    in hardly more time than one.
    """
    new = [run for run in runs if not run.dir.path.exists()]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda run: _start(run, lambda _: None, ""), new):
            pass
    return {run.name for run in new}


def prepare(sweep: SweepDir, run: Run, note) -> RunAction:
    """Make the directory fit for a worker, whatever a kill left of it.

    `run.json` is written last: without it there is no run, and what lies there is overwritten.
    The run's config carries the mesh that the ledger gave it; a directory with another one is from
    before a replan.
    """
    if worker_of(run.dir):
        return RunAction.follow
    remove_partial_files(run.dir)
    stored, state = read_provenance(run.dir), read_status(run.dir).state
    if stored is None:
        _start(run, note, "run.json is missing or damaged" if run.dir.run.exists() else "")
        return RunAction.train
    _mend_config(run, stored)
    if not contains_node(run.dir.config, "mesh", run.config.mesh):
        start_over(sweep, run, "placed on another mesh")
        return RunAction.train
    if state.ended:
        return _check_records(sweep, run, note)
    if drift := _drift(run, stored):
        _on_drift(sweep, run, stored, drift, note)
    return RunAction.train


def start_over(sweep: SweepDir, run: Run, why: str) -> None:
    """Empty the directory and make it a new run."""
    ledger.append(sweep, "restart", {"run": run.name, "why": why})
    _start(run, lambda _: None, "")


def resume_finished(run: Run, why: str) -> None:
    """A finished run goes on from its last good point. Only while no worker has it."""
    status = read_status(run.dir)
    write_status(run.dir, dataclasses.replace(status, state=State.pending, message=why, writer=None))


def _start(run: Run, note, why: str) -> None:
    if why:
        note(f"{run.name}: {why}; it starts from nothing")
    _empty(run.dir)
    run.dir.path.mkdir(parents=True, exist_ok=True)
    write_config(run.dir.config, run.config)
    write_provenance(run.dir, provenance_of(run))


def _empty(run: RunDir) -> None:
    """Everything but log, timeline and lock goes; `run.json` first, so that a kill leaves no run."""
    for path in (run.run, run.status):
        path.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.metrics, *run.path.glob("branch*")):
        shutil.rmtree(folder, ignore_errors=True)


def provenance_of(run: Run) -> Provenance:
    config = run.config
    return Provenance(
        identity=identity_of(config, run.facts),
        config_hash=hash_json(config),
        code_hash=code_of(config),
        experiment=config.experiment_name,
        scale=config.scale.name,
        variant=config.variant.name,
        seed=config.seed,
        data_seed=config.data_seed,
        parameters=run.facts.parameters,
        tokens=run.tokens,
        facts=run.facts,
        versions=package_versions(),
        touches=[*config.variant.touches],
    )


def _mend_config(run: Run, stored: Provenance) -> None:
    """A damaged config.yaml is written again: run.json says that it is this run's."""
    if not checksum_ok(run.dir.config):
        write_config(run.dir.config, run.config)
        write_provenance(run.dir, dataclasses.replace(stored, config_hash=hash_json(run.config)))
    for branch in run.dir.branches():
        if not checksum_ok(branch.config):
            atomic_files.write_bytes(branch.config, run.dir.config.read_bytes())


def _check_records(sweep: SweepDir, run: Run, note) -> RunAction:
    faults = find_damage(run.dir, _branches(run))
    if not faults:
        return RunAction.skip
    note(f"{run.name}: {faults[0]}; the run is trained again from its last good point")
    ledger.append(sweep, "damage", {"run": run.name, "faults": faults})
    resume_finished(run, faults[0])
    return RunAction.train


def _branches(run: Run) -> list[float]:
    """Shares of the branches that an ended run must have: all if it is finished, else those it began."""
    finished = read_status(run.dir).state is State.finished
    shares = run.config.schedule.branches
    return [share for share in shares if finished or run.dir.branch(share).path.is_dir()]


def _drift(run: Run, stored: Provenance) -> str:
    """What is no longer as it was when the run began: its code, or a library."""
    if stored.code_hash.rpartition("+")[2] != code_of(run.config):
        return "the code changed"
    versions = package_versions()
    changed = [name for name, version in stored.versions.items() if versions.get(name, version) != version]
    return f"the version of {', '.join(changed)} changed" if changed else ""


def _on_drift(sweep: SweepDir, run: Run, stored: Provenance, drift: str, note) -> None:
    step = read_status(run.dir).step
    if not run.config.resume.allow_drift:
        if step:
            note(f"{run.name}: {drift} at step {step}; it starts over (resume.allow_drift=true would go on)")
        start_over(sweep, run, drift)
        return
    note(f"{run.name}: {drift} at step {step}; it goes on, and is marked MIXED_CODE")
    ledger.append(sweep, "drift", {"run": run.name, "what": drift, "step": step})
    code = f"{stored.code_hash}@{step}+{code_of(run.config)}"
    write_provenance(
        run.dir, dataclasses.replace(stored, code_hash=code, versions=stored.versions | package_versions())
    )


def _how_it_differs(run: Run, stored: Provenance) -> str:
    try:
        found = identity_difference(read_config(run.dir.config), run.config)
        base = run.facts.base
        if base and stored.facts.base and not found:
            return f"it started from {base['name']}, which has been trained again since"
        return found or "by its identity"
    except UserError as error:
        return str(error)


def set_state(run: RunDir, state: State, message: str) -> None:
    """Say of a run without a worker how it was left."""
    status = read_status(run)
    left = dataclasses.replace(status, state=state, message=message, writer=None)
    if left != status:  # of thousands that wait, most say so already
        write_status(run, left)


__all__ = [
    "RunAction",
    "Status",
    "check_identities",
    "create_new",
    "prepare",
    "resume_finished",
    "set_state",
    "start_over",
]
