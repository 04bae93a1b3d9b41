"""Manifest of a checkpoint: size and checksum of every file, written last.

Orbax reads a flipped bit silently, and a kill can leave a partial folder. A checkpoint is valid only if its
manifest exists and matches its files.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from typing import Any

from harness.core import atomic_files
from harness.records.paths import RunDir
from harness.records.run import checkpoint_files
from harness.records.typed_values import parse_record


@dataclass(frozen=True)
class Manifest:
    """Content of `<step>.manifest.json`."""

    step: int
    identity: str
    data_fingerprint: str
    example_hash: str
    """Rolling hash over the ids of all examples consumed up to this step."""
    device_seconds: float
    files: dict[str, list]
    """Relative path -> [size in bytes, sha256]."""
    input_seconds: float = 0.0
    """Part of `device_seconds` that was spent waiting for input."""
    stream: dict[str, Any] = field(default_factory=dict)
    """Hash of the stream of examples (records.run.stream_hash); empty for a run of an earlier version."""


def write_manifest(run: RunDir, manifest: Manifest) -> None:
    """Fill `files` from the checkpoint's folder and write the manifest, which makes the checkpoint valid."""
    files = checkpoint_files.hash_new_files(run.checkpoint(manifest.step))
    content = dataclasses.asdict(dataclasses.replace(manifest, files=files))
    atomic_files.write_checksummed_json(run.manifest(manifest.step), content)


def read_manifest(run: RunDir, step: int) -> Manifest | None:
    """Return the manifest; None if it is missing or does not match its checksum."""
    return parse_record(Manifest, atomic_files.read_checksummed_json(run.manifest(step)))


def manifest_steps(run: RunDir) -> list[int]:
    """Return the steps of all manifests on disk, ascending, valid or not."""
    names = (path.name.partition(".")[0] for path in run.checkpoints.glob("*.manifest.json"))
    return sorted(int(name) for name in names if name.isdecimal())


def corruption_reason(run: RunDir, step: int, *, trust_memory: bool = False) -> str | None:
    """Return why a checkpoint with a manifest cannot be used; None if it is valid. Every byte is read, unless
    `trust_memory`: then files that were verified before and are as they were count as valid."""
    manifest = read_manifest(run, step)
    if manifest is None:
        return f"{run.manifest(step)}: the manifest does not match its own checksum"
    return checkpoint_files.find_fault(run.checkpoint(step), manifest.files, trust_memory)


def valid_steps(run: RunDir, *, trust_memory: bool = False) -> tuple[list[int], list[str]]:
    """Return the steps of valid checkpoints, ascending, and a sentence for each invalid one. `trust_memory`:
    as in `corruption_reason`."""
    reasons = {step: corruption_reason(run, step, trust_memory=trust_memory) for step in manifest_steps(run)}
    valid = [step for step, reason in reasons.items() if reason is None]
    return valid, [reason for reason in reasons.values() if reason]


def remove_incomplete_checkpoints(run: RunDir) -> None:
    """Remove checkpoint folders without a manifest: never completed, or partly removed."""
    complete = {run.checkpoint(step).name for step in manifest_steps(run)}
    for folder in run.checkpoints.glob("*/"):
        if folder.name not in complete:
            shutil.rmtree(folder, ignore_errors=True)


def remove_checkpoint(run: RunDir, step: int) -> None:
    """Remove the manifest, then the folder: a kill in between leaves no manifest without its files."""
    run.manifest(step).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoint(step), ignore_errors=True)


def move_checkpoint(run: RunDir, step: int, target: RunDir) -> None:
    """Move the manifest, then the folder, to another directory, in the order of `remove_checkpoint`."""
    target.checkpoints.mkdir(parents=True, exist_ok=True)
    run.manifest(step).replace(target.manifest(step))
    run.checkpoint(step).replace(target.checkpoint(step))
