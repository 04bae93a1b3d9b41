"""What makes a checkpoint a checkpoint: size and checksum of every file, written last.

Orbax reads a flipped bit silently, and a kill can leave a folder half written; so a
checkpoint without a manifest, or that does not fit its manifest, does not exist.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass

from harness.core import atomic_files
from harness.records.paths import RunDir


@dataclass(frozen=True)
class Manifest:
    step: int
    identity: str
    data_fingerprint: str
    example_hash: str
    """Rolling hash of the ids of all examples consumed up to this step."""
    device_seconds: float
    files: dict[str, list]
    """Relative path -> [size in bytes, sha256]."""
    input_seconds: float = 0.0
    """The part of `device_seconds` in which the lane waited for its input."""


def write_manifest(run: RunDir, manifest: Manifest) -> None:
    """Fill in `files` from the checkpoint's folder and write the manifest, which completes it."""
    folder = run.checkpoint(manifest.step)
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, atomic_files.file_sha256(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    atomic_files.write_checksummed_json(
        run.manifest(manifest.step), dataclasses.asdict(dataclasses.replace(manifest, files=files))
    )


def read_manifest(run: RunDir, step: int) -> Manifest | None:
    """None where there is none, or where it was changed since it was written."""
    body = atomic_files.read_checksummed_json(run.manifest(step))
    try:
        return Manifest(**body) if body is not None else None
    except TypeError:
        return None


def manifest_steps(run: RunDir) -> list[int]:
    """Steps of every manifest on disk, ascending, fitting or not."""
    names = (path.name.partition(".")[0] for path in run.checkpoints.glob("*.manifest.json"))
    return sorted(int(name) for name in names if name.isdigit())


def corruption_reason(run: RunDir, step: int) -> str | None:
    """Why a checkpoint with a manifest cannot be used, in words; None if it is good."""
    manifest = read_manifest(run, step)
    if manifest is None:
        return f"{run.manifest(step)}: the manifest does not fit its own checksum"
    for name, (size, checksum) in manifest.files.items():
        path = run.checkpoint(step) / name
        if not path.is_file():
            return f"{path}: the file is missing"
        if path.stat().st_size != size or atomic_files.file_sha256(path) != checksum:
            return f"{path}: its content does not fit the checksum in the manifest"
    return None


def valid_steps(run: RunDir) -> tuple[list[int], list[str]]:
    """Steps whose checkpoint is whole, ascending, and a sentence for each that is not."""
    faults = {step: corruption_reason(run, step) for step in manifest_steps(run)}
    return [step for step, why in faults.items() if why is None], [why for why in faults.values() if why]


def remove_incomplete_checkpoints(run: RunDir) -> None:
    """Folders of checkpoints that were never completed, or half removed, go."""
    complete = {run.checkpoint(step).name for step in manifest_steps(run)}
    for folder in run.checkpoints.glob("*/"):
        if folder.name not in complete:
            shutil.rmtree(folder, ignore_errors=True)


def remove_checkpoint(run: RunDir, step: int) -> None:
    """Manifest first: a kill in between leaves a folder that is no checkpoint, never the reverse."""
    run.manifest(step).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoint(step), ignore_errors=True)
