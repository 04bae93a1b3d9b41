"""What a user names as RUN or RUN@STEP, found on disk and checked. Never imports JAX."""

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
"""From the folder that holds the sweeps down to a run, or from a sweep to a branch."""
MAX_WRONG_PARTS = 3
"""So many parts of a path may be wrong for its neighbours to be looked for."""


@dataclass(frozen=True)
class RunRef:
    """A run or a branch, and the step that stood behind its @."""

    run: RunDir
    step: int | None
    config: Config
    provenance: Provenance


@dataclass(frozen=True)
class Checkpoint:
    """A good checkpoint of a run or a branch, and all that is written about it."""

    run: RunDir
    step: int
    config: Config
    provenance: Provenance
    manifest: Manifest
    skipped: tuple[str, ...] = ()
    """A sentence for each damaged checkpoint that is newer than this one, where none was asked for."""

    @property
    def sweep(self) -> SweepDir:
        """The sweep of the run; the run's own folder where that was moved out of one."""
        return SweepDir(_sweep_root(self.run, self.provenance))

    @property
    def name(self) -> str:
        """`xs/mha/seed0/branch50@61`."""
        home = _sweep_root(self.run, self.provenance)
        path = self.run.path.resolve()
        return f"{path.relative_to(home) if home != path else path.name}@{self.step}"


def find_checkpoint(where: Path | str) -> Checkpoint:
    """The checkpoint that RUN@STEP names, or the newest good one of RUN.

    Raises UserError where there is no run, no such step, no checkpoint yet, or only a damaged one.
    """
    run_ref = find_run(where)
    step, skipped = (
        _newest_valid_step(run_ref.run)
        if run_ref.step is None
        else (_require_valid_step(run_ref.run, run_ref.step), ())
    )
    return checkpoint_of(run_ref, step, skipped)


def checkpoint_of(run_ref: RunRef, step: int, skipped: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint of a run at a step at which it has a good one. Raises UserError if it is another's."""
    manifest = read_manifest(run_ref.run, step)
    if manifest is None or manifest.identity != run_ref.provenance.identity:
        raise UserError(
            f"{run_ref.run.checkpoint(step)} is a checkpoint of another run: name that run instead"
        )
    return Checkpoint(run_ref.run, step, run_ref.config, run_ref.provenance, manifest, skipped)


def find_run(where: Path | str) -> RunRef:
    """The run that RUN or RUN@STEP names, and that step. Raises UserError where there is no such run."""
    path, step = _split_step(local_path(where, "mount it, or copy the run here"))
    run = RunDir(path)
    provenance = _require_provenance(run)
    return RunRef(run, step, read_config(run.config), provenance)


def _split_step(where: str) -> tuple[Path, int | None]:
    """RUN and STEP. A path that exists is taken whole, since its name may hold an @."""
    path, at, step = where.rpartition("@")
    if not at or Path(where).exists():
        return Path(where), None
    if not step.isdecimal():
        raise UserError(
            f"{where}: '{step}' is no step; write {path}@100, or {path} for its newest checkpoint"
        )
    return Path(path), int(step)


def _require_provenance(run: RunDir) -> Provenance:
    if not run.run.is_file():
        raise UserError(f"{run.path}: no run lies there; {_suggest_runs(run.path)}")
    provenance = read_provenance(run)
    if provenance is None:
        raise UserError(f"{run.run} is damaged or of another version, so that the run cannot be read")
    return provenance


def _suggest_runs(path: Path) -> str:
    """The runs below a folder; else the nearest name from the first folder on that exists, or in runs/."""
    if path.is_dir() and (below := _runs_below(path, MAX_SEARCH_DEPTH)):
        return did_you_mean("", below)
    missing = next(i for i, parent in enumerate(path.parents) if parent.is_dir())
    around = path.parents[missing]
    runs = _runs_below(Path("runs"), MAX_SEARCH_DEPTH) if around == Path() else []
    if around != Path() and missing < MAX_WRONG_PARTS:
        runs = _runs_below(around, missing + 1)
    return did_you_mean(str(path), runs) if runs else "`harness sweep` makes one"


def _runs_below(folder: Path, depth: int) -> list[str]:
    levels = ("*/" * level + "run.json" for level in range(depth + 1))
    return [str(file.parent) for level in levels for file in folder.glob(level)]


def _require_valid_step(run: RunDir, step: int) -> int:
    steps = manifest_steps(run)
    if step not in steps:
        alternatives = f"there are {_comma_list(steps)}" if steps else _no_checkpoint_text(run)
        raise UserError(f"{run.path}@{step}: no checkpoint at that step; {alternatives}")
    if why := corruption_reason(run, step):
        valid = [valid_step for valid_step in valid_steps(run)[0] if valid_step != step]
        way_out = f"good are {_comma_list(valid)}" if valid else "there is no other"
        raise UserError(f"{run.path}@{step}: the checkpoint is damaged ({why}); {way_out}")
    return step


def _newest_valid_step(run: RunDir) -> tuple[int, tuple[str, ...]]:
    """The newest good step, and what is wrong with those after it."""
    skipped: list[str] = []
    for step in reversed(manifest_steps(run)):
        why = corruption_reason(run, step)
        if why is None:
            return step, tuple(skipped)
        skipped.append(f"{run.path}@{step} is damaged and was stepped over ({why})")
    if skipped:
        raise UserError(f"{run.path}: no checkpoint is whole; {skipped[0]}; train the run again to mend it")
    raise UserError(f"{run.path}: {_no_checkpoint_text(run)}")


def _no_checkpoint_text(run: RunDir) -> str:
    status = read_status(run)
    return f"no checkpoint was saved yet (the run is {status.state.value} at step {status.step})"


def _comma_list(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _sweep_root(run: RunDir, provenance: Provenance) -> Path:
    """Where `<scale>/<variant>/seed<k>[/branch<pct>]` starts; the run itself if it does not lie so."""
    path = run.path.resolve()
    trunk = path if provenance.parent is None else path.parent
    expected = (provenance.scale, provenance.variant, f"seed{provenance.seed}")
    return trunk.parents[2] if trunk.parts[-3:] == expected else path


def parent_of(branch: Checkpoint) -> tuple[RunDir, int] | None:
    """For a branch: the run that it left, and the step at which it did. None for a run of its own."""
    parent = branch.provenance.parent
    return (RunDir(branch.run.path.parent), int(parent["step"])) if parent else None
