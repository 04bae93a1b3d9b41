"""Provenance of a sweep: the environment of every run, its dependencies, and the state of the ledger.

Damaged files do not raise: their values are None or empty. Checkpoint files are not hashed again here;
`harness diff` and `harness verify` do that.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compare.inputs.json_values import read_json_object
from harness.compare.inputs.ledger_check import LedgerState, placed_meshes, read_ledger_state
from harness.compare.inputs.noise_floor import floor_key, matching_entries
from harness.compare.inputs.run_records import UNREADABLE_RUN
from harness.compare.results.comparison import Comparison
from harness.core import atomic_files
from harness.core.hashing import hash_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run.checkpoint_manifest import manifest_steps, read_manifest
from harness.records.run.environment import STEP_KEY, Environment, parse_environment
from harness.records.run.example_hash import read_examples
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.status import read_status

NAME_DIGITS = 16
"""Hex digits of the hash that names an environment."""
VERDICT = "verdict"


@dataclass(frozen=True)
class EnvironmentFrom:
    """Environment of a run from `step` on; `name` is a key of `SweepProvenance.surroundings`."""

    step: int
    name: str


@dataclass(frozen=True)
class LastCheckpoint:
    """Last checkpoint of a run."""

    step: int
    manifest: str | None
    """Checksum recorded in its manifest; None if the manifest no longer matches it."""


@dataclass(frozen=True)
class RunProvenance:
    """Provenance of one run or cooldown branch."""

    path: str
    """Path relative to the sweep."""
    identity: str
    config_hash: str
    code_hash: str
    data_fingerprint: str
    eval_fingerprint: str
    versions: Mapping[str, str]
    surroundings: tuple[EnvironmentFrom, ...]
    mesh: Mapping[str, Any] | None
    """Mesh recorded in the ledger; a branch has its parent's."""
    examples: str | None
    """Rolling hash of all examples that the run read; None until it is finished."""
    state: str
    attempts: int
    checkpoint: LastCheckpoint | None
    problem: str = ""


@dataclass(frozen=True)
class Dependency:
    """`source` depends on `target`, whose content has this checksum (None if it has no readable one)."""

    kind: str
    """branch | finetune | tune | noise_floor | rule"""
    source: str
    target: str
    checksum: str | None


@dataclass(frozen=True)
class SweepProvenance:
    """Provenance of all runs of a sweep and of its verdict."""

    runs: tuple[RunProvenance, ...]
    depends_on: tuple[Dependency, ...]
    surroundings: Mapping[str, Environment]
    """Devices, platform, processor, flags and versions, keyed by their hash."""
    ledger: LedgerState


def sweep_provenance(sweep: SweepDir, comparison: Comparison) -> SweepProvenance:
    """Collect the provenance of every launched run and branch, in order of path."""
    meshes = placed_meshes(sweep)
    environments: dict[str, Environment] = {}
    runs, dependencies, controls = [], [], []
    for parent_run in sweep.runs():
        for run in (parent_run, *parent_run.branches()):
            record = read_provenance(run)
            path = run.path.relative_to(sweep.path).as_posix()
            mesh = meshes.get(parent_run.path.relative_to(sweep.path).as_posix())
            runs.append(_run_provenance(run, path, record, mesh, environments))
            dependencies += _run_dependencies(run, path, record)
            if run is parent_run and record and record.variant == comparison.rule.control:
                controls.append(record)
    dependencies += _verdict_dependencies(sweep, comparison, controls)
    return SweepProvenance(tuple(runs), tuple(dependencies), environments, read_ledger_state(sweep))


def _run_provenance(
    run: RunDir, path: str, record: Provenance | None, mesh: Any, environments: dict[str, Environment]
) -> RunProvenance:
    status, steps = read_status(run), manifest_steps(run)
    return RunProvenance(
        path=path,
        identity=record.identity if record else "",
        config_hash=record.config_hash if record else "",
        code_hash=record.code_hash if record else "",
        data_fingerprint=record.facts.data_fingerprint if record else "",
        eval_fingerprint=record.facts.eval_fingerprint if record else "",
        versions=record.versions if record else {},
        surroundings=tuple(_environments(record, environments)) if record else (),
        mesh=mesh if isinstance(mesh, dict) else None,
        examples=_text_or_none((read_examples(run) or {}).get("hash")),
        state=status.state.value,
        attempts=status.attempt,
        checkpoint=LastCheckpoint(steps[-1], _manifest_checksum(run, steps[-1])) if steps else None,
        problem="" if record else UNREADABLE_RUN,
    )


def _environments(record: Provenance, environments: dict[str, Environment]) -> Iterator[EnvironmentFrom]:
    for entry in record.surroundings:
        recorded_environment = parse_environment(entry) if isinstance(entry, dict) else None
        if recorded_environment is not None:
            name = _environment_name(recorded_environment)
            environments.setdefault(name, recorded_environment)
            yield EnvironmentFrom(entry[STEP_KEY], name)


def _environment_name(recorded: Environment) -> str:
    """Return the hash that names an environment; one without variables of compilers keeps its first name."""
    content = dataclasses.asdict(recorded)
    if not recorded.variables:
        del content["variables"]
    return hash_json(content)[:NAME_DIGITS]


def _manifest_checksum(run: RunDir, step: int) -> str | None:
    """Return the checksum recorded in a manifest, or None if the manifest no longer matches it."""
    if read_manifest(run, step) is None:
        return None
    return _text_or_none(read_json_object(run.manifest(step)).get("checksum"))


def _run_dependencies(run: RunDir, path: str, record: Provenance | None) -> Iterator[Dependency]:
    parent = record.parent if record else None
    if isinstance(parent, dict) and isinstance(step := parent.get("step"), int):
        checksum = _manifest_checksum(RunDir(run.path.parent), step)
        yield Dependency("branch", path, f"{path.rpartition('/')[0]}@{step}", checksum)
    base = record.facts.base if record else None
    if isinstance(base, dict) and parent is None:
        yield Dependency("finetune", path, str(base.get("name")), _text_or_none(base.get("checksum")))


def _verdict_dependencies(
    sweep: SweepDir, comparison: Comparison, controls: list[Provenance]
) -> Iterator[Dependency]:
    if comparison.rule.hash:
        rule_hash = _text_or_none(read_json_object(sweep.rule).get("hash"))
        yield Dependency("rule", VERDICT, sweep.rule.name, rule_hash or comparison.rule.hash)
    if os.path.lexists(sweep.tune.learning_rates):
        name = sweep.tune.learning_rates.relative_to(sweep.path).as_posix()
        yield Dependency("tune", sweep.path.name, name, _tuning_checksum(sweep))
    entries = matching_entries(sweep, [floor_key(record) for record in controls])
    for file in sorted({file for _, file in entries.values()}):
        name = Path(os.path.relpath(file, sweep.path)).as_posix()
        yield Dependency("noise_floor", VERDICT, name, atomic_files.file_sha256(file))


def _tuning_checksum(sweep: SweepDir) -> str | None:
    """Return the hash that the file of learning rates holds; None if it does not fit what the file holds."""
    content = read_json_object(sweep.tune.learning_rates)
    checksum = _text_or_none(content.get("hash"))
    return checksum if checksum == hash_json(content.get("variants")) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
