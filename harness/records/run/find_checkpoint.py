"""Lookup and check of the run or checkpoint that a user names as RUN or RUN@STEP. Never imports JAX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.run import Config
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import local_path
from harness.records.paths import RunDir, SweepDir
from harness.records.run.checkpoint_manifest import (
    Manifest,
    corruption_reason,
    manifest_steps,
    read_manifest,
    valid_steps,
)
from harness.records.run.config_file import read_config
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.status import read_status

MAX_SEARCH_DEPTH = 4
"""Levels from the folder of the sweeps to a run, or from a sweep to a branch."""
MAX_WRONG_PARTS = 3
"""Number of wrong parts of a path up to which similar paths are suggested."""


@dataclass(frozen=True)
class RunRef:
    """Run or branch, and the step after its @, if any."""

    run: RunDir
    step: int | None
    config: Config
    provenance: Provenance

    @property
    def sweep(self) -> SweepDir:
        """Sweep of the run; the run's own folder if it was moved out of a sweep."""
        path = self.run.path.resolve()
        trunk = path if self.provenance.parent is None else path.parent
        expected = (self.provenance.scale, self.provenance.variant, f"seed{self.provenance.seed}")
        return SweepDir(trunk.parents[2] if trunk.parts[-3:] == expected else path)


@dataclass(frozen=True)
class Checkpoint(RunRef):
    """Valid checkpoint of a run or a branch, with its records."""

    step: int
    manifest: Manifest
    skipped: tuple[str, ...] = ()
    """Sentence for each damaged newer checkpoint that the search skipped."""

    @property
    def name(self) -> str:
        """Name such as `xs/mha/seed0/branch50@61`."""
        home, path = self.sweep.path, self.run.path.resolve()
        return f"{path.relative_to(home) if home != path else path.name}@{self.step}"


def find_checkpoint(where: Path | str, *, trust_memory: bool = False) -> Checkpoint:
    """Return the valid checkpoint RUN@STEP, or the newest one of RUN. Raises UserError if there is none.
    `trust_memory`: one that was verified before and is as it was counts as valid; never restore that one."""
    run_ref = find_run(where)
    if run_ref.step is None:
        return checkpoint_of(run_ref, *_newest_valid_step(run_ref.run, trust_memory))
    return checkpoint_of(run_ref, _require_valid_step(run_ref.run, run_ref.step, trust_memory))


def checkpoint_of(run_ref: RunRef, step: int, skipped: tuple[str, ...] = ()) -> Checkpoint:
    """Return the valid checkpoint of a run at a step. Raises UserError if another run wrote it."""
    manifest = read_manifest(run_ref.run, step)
    if manifest is None or manifest.identity != run_ref.provenance.identity:
        raise UserError(
            f"{run_ref.run.checkpoint(step)} is a checkpoint of another run. Name that run instead."
        )
    return Checkpoint(run_ref.run, step, run_ref.config, run_ref.provenance, manifest, skipped)


def find_run(where: Path | str) -> RunRef:
    """Return the run of RUN or RUN@STEP, and the step. Raises UserError if there is no such run."""
    path, step = _split_step(local_path(where, "mount it, or copy the run here"))
    run = RunDir(path)
    if not run.run.is_file():
        raise UserError(f"{path} is not a run; {_suggest_runs(path)}")
    provenance = read_provenance(run)
    if provenance is None:
        raise UserError(f"{run.run} is damaged or of another version, so the run cannot be read.")
    return RunRef(run, step, read_config(run.config), provenance)


def _split_step(where: str) -> tuple[Path, int | None]:
    """Split RUN@STEP. A path that exists is not split, since its name may contain an @."""
    path, at, step = where.rpartition("@")
    if not at or Path(where).exists():
        return Path(where), None
    if not step.isdecimal():
        raise UserError(f"{where}: '{step}' is not a step. Write {path}@100, or {path} for the last one.")
    return Path(path), int(step)


def _suggest_runs(path: Path) -> str:
    """Suggest the runs below a folder, else similar paths below the nearest existing folder or runs/."""
    if path.is_dir() and (below := _runs_below(path, MAX_SEARCH_DEPTH)):
        return did_you_mean("", below)
    missing = next(i for i, parent in enumerate(path.parents) if parent.is_dir())
    around = path.parents[missing]
    runs = _runs_below(Path("runs"), MAX_SEARCH_DEPTH) if around == Path() else []
    if around != Path() and missing < MAX_WRONG_PARTS:
        runs = _runs_below(around, missing + 1)
    return did_you_mean(str(path), runs) if runs else "`harness sweep` creates one"


def _runs_below(folder: Path, depth: int) -> list[str]:
    levels = ("*/" * level + "run.json" for level in range(depth + 1))
    return [str(file.parent) for level in levels for file in folder.glob(level)]


def _require_valid_step(run: RunDir, step: int, trust_memory: bool) -> int:
    steps = manifest_steps(run)
    if step not in steps:
        alternatives = f"there are {', '.join(map(str, steps))}" if steps else _no_checkpoint_text(run)
        raise UserError(f"{run.path}@{step}: no checkpoint at that step; {alternatives}")
    if why := corruption_reason(run, step, trust_memory=trust_memory):
        valid = ", ".join(map(str, valid_steps(run, trust_memory=True)[0]))
        way_out = f"valid ones: {valid}" if valid else "there is no other one"
        raise UserError(f"{run.path}@{step}: the checkpoint is damaged ({why}); {way_out}")
    return step


def _newest_valid_step(run: RunDir, trust_memory: bool) -> tuple[int, tuple[str, ...]]:
    """Return the newest valid step, and a sentence for each damaged checkpoint after it."""
    skipped: list[str] = []
    for step in reversed(manifest_steps(run)):
        if not (reason := corruption_reason(run, step, trust_memory=trust_memory)):
            return step, tuple(skipped)
        skipped.append(f"{run.path}@{step} is damaged and was skipped ({reason})")
    if skipped:
        raise UserError(f"{run.path} has no valid checkpoint: {skipped[0]}. Train the run again.")
    raise UserError(f"{run.path}: {_no_checkpoint_text(run)}")


def _no_checkpoint_text(run: RunDir) -> str:
    status = read_status(run)
    return f"no checkpoint was saved yet (the run is {status.state.value} at step {status.step})"


def parent_of(branch: Checkpoint) -> tuple[RunDir, int] | None:
    """Return the parent run of a branch and the step of the fork; None for a run that is not a branch."""
    parent = branch.provenance.parent
    return (RunDir(branch.run.path.parent), int(parent["step"])) if parent else None
