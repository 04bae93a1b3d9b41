"""Under what every run of a sweep was trained, what depends on what, and what the ledger says of it.

Nothing here is judged, and nothing that is found raises: what cannot be read is None or empty. Files of
checkpoints are not hashed again; `harness diff` and `harness verify` do that.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compare.inputs.decision_rule import content_of
from harness.compare.inputs.ledger_check import LedgerState, ledger_state, places
from harness.compare.inputs.noise_floor import Wanted, fitting
from harness.compare.inputs.run_records import digest_of
from harness.compare.results.comparison import Comparison
from harness.core import atomic_files
from harness.records.paths import RunDir, SweepDir
from harness.records.run import environment as surroundings
from harness.records.run.checkpoint_manifest import manifest_steps, read_manifest
from harness.records.run.environment import Surroundings
from harness.records.run.example_hash import read_examples
from harness.records.run.provenance import Provenance, read_provenance
from harness.records.run.status import read_status

DIGITS = 16
"""Of the hash that names surroundings."""
VERDICT = "verdict"


@dataclass(frozen=True)
class Around:
    """What a run was in from a step on: a name in `SweepProvenance.surroundings`."""

    step: int
    name: str


@dataclass(frozen=True)
class Saved:
    """The last checkpoint of a run. `manifest`: the checksum that its manifest has of itself, None where it
    no longer fits."""

    step: int
    manifest: str | None


@dataclass(frozen=True)
class RunOrigin:
    """One run or branch."""

    path: str
    """Relative to the sweep."""
    identity: str
    config_hash: str
    code_hash: str
    data_fingerprint: str
    eval_fingerprint: str
    versions: Mapping[str, str]
    surroundings: tuple[Around, ...]
    mesh: Mapping[str, Any] | None
    """As the ledger places it; of a branch its parent's."""
    examples: str | None
    """Rolling hash of all examples that the finished run read."""
    state: str
    attempts: int
    checkpoint: Saved | None
    problem: str = ""


@dataclass(frozen=True)
class Edge:
    """`source` depends on `target`, whose content has this checksum; None where there is none to be had."""

    kind: str
    """branch | finetune | tune | noise_floor | rule"""
    source: str
    target: str
    checksum: str | None


@dataclass(frozen=True)
class SweepProvenance:
    runs: tuple[RunOrigin, ...]
    depends_on: tuple[Edge, ...]
    surroundings: Mapping[str, Surroundings]
    """Devices, platform, processor, flags and versions, by a name that is their hash."""
    ledger: LedgerState


def provenance_of(sweep: SweepDir, comparison: Comparison) -> SweepProvenance:
    """Of every run that was launched, its branches among them, by path."""
    meshes = places(sweep)
    known: dict[str, Surroundings] = {}
    origins, edges, controls = [], [], []
    for trunk in sweep.runs():
        for run in (trunk, *trunk.branches()):
            record = read_provenance(run)
            path = run.path.relative_to(sweep.path).as_posix()
            mesh = meshes.get(trunk.path.relative_to(sweep.path).as_posix())
            origins.append(_origin(run, path, record, mesh, known))
            edges += _run_edges(run, path, record)
            if run is trunk and record and record.variant == comparison.rule.control:
                controls.append(record)
    edges += _verdict_edges(sweep, comparison, controls)
    return SweepProvenance(tuple(origins), tuple(edges), known, ledger_state(sweep))


def _origin(
    run: RunDir, path: str, record: Provenance | None, mesh: Any, known: dict[str, Surroundings]
) -> RunOrigin:
    status = read_status(run)
    return RunOrigin(
        path=path,
        identity=record.identity if record else "",
        config_hash=record.config_hash if record else "",
        code_hash=record.code_hash if record else "",
        data_fingerprint=record.facts.data_fingerprint if record else "",
        eval_fingerprint=record.facts.eval_fingerprint if record else "",
        versions=record.versions if record else {},
        surroundings=tuple(_around(record, known)) if record else (),
        mesh=mesh if isinstance(mesh, dict) else None,
        examples=_text((read_examples(run) or {}).get("hash")),
        state=status.state.value,
        attempts=status.attempt,
        checkpoint=_saved(run),
        problem="" if record else "run.json is missing, damaged or of another layout",
    )


def _around(record: Provenance, known: dict[str, Surroundings]) -> Iterator[Around]:
    for entry in record.surroundings:
        seen = surroundings.of(entry) if isinstance(entry, dict) else None
        if seen is not None:
            name = digest_of(dataclasses.asdict(seen))[:DIGITS]
            known.setdefault(name, seen)
            yield Around(entry[surroundings.STEP], name)


def _saved(run: RunDir) -> Saved | None:
    steps = manifest_steps(run)
    return Saved(steps[-1], _checksum(run, steps[-1])) if steps else None


def _checksum(run: RunDir, step: int) -> str | None:
    """What a manifest says of itself, if it still fits."""
    if read_manifest(run, step) is None:
        return None
    return _text(content_of(run.manifest(step)).get("checksum"))


def _run_edges(run: RunDir, path: str, record: Provenance | None) -> Iterator[Edge]:
    parent = record.parent if record else None
    if isinstance(parent, dict) and isinstance(step := parent.get("step"), int):
        trunk = RunDir(run.path.parent)
        yield Edge("branch", path, f"{path.rpartition('/')[0]}@{step}", _checksum(trunk, step))
    base = record.facts.base if record else None
    if isinstance(base, dict) and parent is None:
        yield Edge("finetune", path, str(base.get("name")), _text(base.get("checksum")))


def _verdict_edges(sweep: SweepDir, comparison: Comparison, controls: list[Provenance]) -> Iterator[Edge]:
    rule = content_of(sweep.rule)
    if comparison.rule.hash:
        yield Edge("rule", VERDICT, sweep.rule.name, _text(rule.get("hash")) or comparison.rule.hash)
    if tuned := content_of(sweep.tune.tuned):
        name = sweep.tune.tuned.relative_to(sweep.path).as_posix()
        yield Edge("tune", sweep.path.name, name, _text(tuned.get("hash")))
    wanted = [
        Wanted(each.scale, each.facts.non_embedding, each.tokens, each.facts.eval_fingerprint)
        for each in controls
    ]
    for file in sorted({file for _, file in fitting(sweep, wanted).values()}):
        name = Path(os.path.relpath(file, sweep.path)).as_posix()
        yield Edge("noise_floor", VERDICT, name, atomic_files.sha256(file))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
