"""Run directories before training: created, continued, started over, or left alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

from harness.config.pair_check import identity_difference
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json, to_plain
from harness.launcher.runs import Run
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import (
    checksum_ok,
    contains_node,
    holds_config,
    read_config,
    write_config,
)
from harness.records.run.integrity import find_damage, remove_partial_files
from harness.records.run.provenance import (
    Provenance,
    code_hash_of,
    identity_of,
    package_versions,
    read_provenance,
    write_provenance,
)
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, read_intact_status, read_status, write_status
from harness.records.sweep import ledger

Note = Callable[[str], None]
LATER_AXES = ("pipeline",)
"""Mesh axes that the first version did not have."""
THREADS = 16
"""Directories that are made at the same time."""


class RunAction(Enum):
    """Next action for a run."""

    skip = "skip"
    """The run has an outcome, and its records are complete."""
    follow = "follow"
    """A live worker trains it."""
    train = "train"


def check_identities(runs: Sequence[Run]) -> None:
    """Raise UserError if a directory holds a run with another identity. Writes nothing."""
    for run in runs:
        stored = read_provenance(run.dir)
        if stored is None or stored.identity == identity_of(run.config, run.facts):
            continue
        if difference := _identity_difference(run, stored):
            raise UserError(
                f"{run.dir.path} holds another run: {difference}. "
                "Choose another experiment_name=..., or move that folder away."
            )


def create_new(runs: Sequence[Run]) -> set[str]:
    """Create the directories of runs that have none, as `prepare` would. Returns the names of these runs.
    Each file is synced before it gets its name, and `run.json` comes last. In threads, because a disk syncs
    many files in hardly more time than one."""
    new = [run for run in runs if not run.dir.path.exists()]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_create, new))
    return {run.name for run in new}


def prepare(sweep: SweepDir, run: Run, note: Note) -> RunAction:
    """Make the directory fit for a worker, in whatever state a kill left it. `run.json` is written last:
    without it the directory holds no run and is overwritten. The run's config has the mesh from the ledger; a
    directory with another mesh dates from before a replan."""
    if worker_of(run.dir):
        return RunAction.follow
    remove_partial_files(run.dir)
    stored, state = read_provenance(run.dir), read_status(run.dir).state
    if stored is None:
        if run.dir.run.exists():
            note(f"{run.name}: run.json is missing or damaged; it starts from step 0")
        _create(run)
        return RunAction.train
    _repair_config(run, stored)
    if not _has_mesh(run):
        start_over(sweep, run, "placed on another mesh")
        return RunAction.train
    if state.ended:
        return _check_records(sweep, run, note)
    if run.dir.status.exists() and read_intact_status(run.dir) is None:
        note(f"{run.name}: status.json is damaged; it goes on from its last valid checkpoint")
    if _reads_other_data(run, stored):  # it has no steps to keep, or the launch would have been refused
        start_over(sweep, run, "the data changed")
    elif drift := _find_drift(run, stored):
        _handle_drift(sweep, run, stored, drift, note)
    _take_up_config(run)
    return RunAction.train


def start_over(sweep: SweepDir, run: Run, why: str) -> None:
    """Empty the directory and create the run in it again. `why` goes into the ledger."""
    ledger.append(sweep, "restart", {"run": run.name, "why": why})
    _create(run)


def _create(run: Run) -> None:
    _empty(run.dir)
    run.dir.path.mkdir(parents=True, exist_ok=True)
    write_config(run.dir.config, run.config)
    write_provenance(run.dir, provenance_of(run))


def _empty(run: RunDir) -> None:
    """Remove everything but log, timeline and lock; `run.json` first, so that a kill leaves no run."""
    for path in (run.run, run.status):
        path.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.metrics, *run.path.glob("branch*")):
        shutil.rmtree(folder, ignore_errors=True)


def _set_aside(run: RunDir) -> Path:
    """Move the records of a run that starts over out of the way, `run.json` last, and return their folder."""
    folder = next(folder for folder in run.superseded() if not (folder / run.run.name).exists())
    folder.mkdir(parents=True, exist_ok=True)
    for path in (run.config, run.checkpoints, run.metrics, *run.path.glob("branch*"), run.status, run.run):
        if path.exists():
            path.replace(folder / path.name)
    return folder


def provenance_of(run: Run) -> Provenance:
    """Return the provenance of a run that starts now."""
    config = run.config
    return Provenance(
        identity=identity_of(config, run.facts),
        config_hash=hash_json(config),
        code_hash=code_hash_of(config),
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


def _repair_config(run: Run, stored: Provenance) -> None:
    """Write config.yaml again if it is damaged or imports other modules than the command; run.json has proven
    that it belongs to this run."""
    if not _has_imports(run.dir, run):
        write_config(run.dir.config, run.config)
        write_provenance(run.dir, dataclasses.replace(stored, config_hash=hash_json(run.config)))
    for branch in run.dir.branches():
        if not _has_imports(branch, run):
            atomic_files.write_bytes(branch.config, run.dir.config.read_bytes())


def _take_up_config(run: Run) -> None:
    """Write the config of the command for a run that goes on, if any key outside its identity changed. The
    identity stays, because checkpoints name it. `run.json` comes first: with it, `check_identities` accepts
    the config that a kill left."""
    stored = read_provenance(run.dir)
    assert stored is not None, "only a run with an intact run.json goes on"
    facts = dataclasses.replace(stored.facts, base=run.facts.base)
    record = dataclasses.replace(stored, config_hash=hash_json(run.config), facts=facts)
    if record != stored:
        write_provenance(run.dir, record)
    if not holds_config(run.dir.config, run.config):
        write_config(run.dir.config, run.config)


def _has_mesh(run: Run) -> bool:
    """Return whether the config in a run's directory has the run's mesh. That of an earlier version lacks the
    axes that it did not know, and had none of them."""
    mesh: dict[str, int] = to_plain(run.config.mesh)
    first_axes = {axis: size for axis, size in mesh.items() if axis not in LATER_AXES or size > 1}
    return any(contains_node(run.dir.config, "mesh", axes) for axes in (mesh, first_axes))


def _has_imports(directory: RunDir, run: Run) -> bool:
    """Return whether the config in a directory is intact and imports what the command lists."""
    config = directory.config
    return checksum_ok(config) and contains_node(config, "imports", run.config.imports)


def _check_records(sweep: SweepDir, run: Run, note: Note) -> RunAction:
    """Return `skip` if the records of an ended run are complete. A finished run has all its branches, any
    other run those that it began."""
    finished, shares = read_status(run.dir).state is State.finished, run.config.schedule.branches
    branches = [share for share in shares if finished or run.dir.branch(share).path.is_dir()]
    faults = find_damage(run.dir, branches)
    if not faults:
        return RunAction.skip
    note(f"{run.name}: {faults[0]}; it is trained again from its last valid checkpoint")
    ledger.append(sweep, "damage", {"run": run.name, "faults": faults})
    set_state(run.dir, State.pending, faults[0])
    return RunAction.train


def would_continue(run: Run, stored: Provenance) -> bool:
    """Return whether an unfinished run goes on from its steps, instead of starting over for other code."""
    return run.config.resume.allow_drift or not _find_drift(run, stored)


def _reads_other_data(run: Run, stored: Provenance) -> bool:
    before, now = stored.facts, run.facts
    fingerprints = before.data_fingerprint, before.eval_fingerprint
    return fingerprints != (now.data_fingerprint, now.eval_fingerprint)


def _find_drift(run: Run, stored: Provenance) -> str:
    """Return the change of code or libraries since the run began; empty if there is none."""
    if stored.code_hash.rpartition("+")[2] != code_hash_of(run.config):
        return "the code changed"
    versions = package_versions()
    changed = [name for name, version in stored.versions.items() if versions.get(name, version) != version]
    return f"the version of {', '.join(changed)} changed" if changed else ""


def _handle_drift(sweep: SweepDir, run: Run, stored: Provenance, drift: str, note: Note) -> None:
    step = read_status(run.dir).step
    if not run.config.resume.allow_drift:
        if step:
            over = "it starts over (resume.allow_drift=true would go on)"
            note(f"{run.name}: {drift} at step {step}; {over}. Its steps are kept in {_set_aside(run.dir)}")
        start_over(sweep, run, drift)
        return
    note(f"{run.name}: {drift} at step {step}; it goes on, and is marked MIXED_CODE")
    ledger.append(sweep, "drift", {"run": run.name, "what": drift, "step": step})
    code = f"{stored.code_hash}@{step}+{code_hash_of(run.config)}"
    versions = stored.versions | package_versions()
    write_provenance(run.dir, dataclasses.replace(stored, code_hash=code, versions=versions))


def _identity_difference(run: Run, stored: Provenance) -> str:
    """Describe what makes the run of a directory another one; empty if only keys differ that a run takes up,
    or if its parent checkpoint was moved."""
    try:
        config = read_config(run.dir.config)
    except UserError as error:
        return str(error)
    checksums = {(facts.base or {}).get("checksum") for facts in (stored.facts, run.facts)}
    is_same_start = len(checksums) == 1
    free_nodes = ["finetune.parent"] if is_same_start and run.facts.base else []
    if difference := identity_difference(config, run.config, free_nodes):
        return difference
    if not is_same_start:
        name = (run.facts.base or stored.facts.base or {})["name"]
        return f"it started from {name}, which has been trained again since"
    hashes = hash_json(config), hash_json(run.config)
    is_its_own = stored.config_hash in hashes or identity_of(config, stored.facts) == stored.identity
    return "" if is_its_own else "by its identity"


def set_state(run: RunDir, state: State, message: str) -> None:
    """Write the state of a run that has no worker."""
    status = read_status(run)
    new_status = dataclasses.replace(status, state=state, message=message, writer=None)
    if new_status != status:  # most of the thousands of waiting runs have this status already
        write_status(run, new_status)
