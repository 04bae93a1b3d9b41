"""A sweep as it lies on disk, read once: each run's facts and evaluations, and what is wrong with it.

Of the curves only evaluations are read; step tables stay on disk until a check asks for one. Nothing that
is found here raises: it becomes a `problem`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import yaml

from harness.compare.inputs.evaluations import COLUMNS, Evals, Outcome, outcome_of, read_evals
from harness.core.atomic_files import read_sealed
from harness.records.paths import RunDir, SweepDir
from harness.records.run.example_hash import read_examples
from harness.records.run.provenance import Facts, Provenance, read_provenance
from harness.records.run.status import State, Status, read_status
from harness.records.run.training_target import END

__all__ = [
    "COLUMNS",
    "Evals",
    "Outcome",
    "RunRecord",
    "digest_of",
    "outcome_of",
    "read_evals",
    "read_runs",
]
_SEAL = re.compile(r"^# sha256 .*\n?\Z", re.MULTILINE)
_NODES = ("scale", "variant", "model", "data", "optimizer", "schedule", "rule")
_SEEDS = re.compile(r"^(seed|data_seed): *(-?\d+) *$", re.MULTILINE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunRecord:
    """One run, read."""

    path: str
    directory: RunDir | None
    """None for a run of a table, and for one whose run.json cannot be trusted."""
    provenance: Provenance
    status: Status
    config: dict[str, Any]
    evals: Evals
    examples: dict[str, Any] | None
    branches: dict[float, Evals] = field(default_factory=dict)
    problem: str = ""
    edited: bool = False
    """A file of the run contradicts another: it was changed, moved or copied by hand."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.provenance.scale, self.provenance.variant, self.provenance.seed

    @cached_property
    def diverged(self) -> bool:
        """It ended so, or scored NaN or infinity at its end."""
        if self.status.state is State.diverged:
            return True
        final = self.evals.final
        return bool(self.complete and final and not np.isfinite(list(final.by_domain.values())).all())

    @property
    def complete(self) -> bool:
        return self.status.state is State.finished and not self.evals.empty

    def examples_until(self, share: float) -> dict[str, Any] | None:
        """Hash of the examples consumed up to the end, or to the end of the branch at a share of it."""
        if share == END or self.directory is None:
            return self.examples
        return read_examples(self.directory.branch(share))


def read_runs(sweep: SweepDir) -> list[RunRecord]:
    """Every run that was launched, by path."""
    directories = list(sweep.runs())
    branches = {run.path: _branches(run) for run in directories}
    origins = {run.path: 0 for run in directories}
    origins |= {branch.path: start for found in branches.values() for _, branch, start in found}
    tables = read_evals(origins)
    configs: dict[str, dict] = {}
    return [_record(sweep, run, branches[run.path], tables, configs) for run in directories]


def _record(sweep: SweepDir, run: RunDir, branches, tables, configs) -> RunRecord:
    path = run.path.relative_to(sweep.path).as_posix()
    provenance = _sound(read_provenance(run))
    found = provenance or _from_path(run)
    evals, problem = tables[run.path]
    problem = problem or ("" if provenance else "run.json is missing, damaged or of another layout")
    text = _text(run.config)
    config = _config(text, configs)
    moved = (
        provenance is not None and (found.scale, found.variant, f"seed{found.seed}") != run.path.parts[-3:]
    )
    edited = moved or bool(provenance and _contradicts(config, provenance)) or _unsealed(text)
    return RunRecord(
        path, run if provenance else None, found, read_status(run), config, evals,
        read_examples(run),
        {share: tables[branch.path][0] for share, branch, _ in branches}, problem, edited,
    )  # fmt: skip


def _branches(run: RunDir) -> list[tuple[float, RunDir, int]]:
    """Share, directory and first step of each readable cooldown branch."""
    found = []
    for branch in run.branches():
        record = read_sealed(branch.run)
        parent = record.get("parent") if record else None
        share, step = (parent.get("share"), parent.get("step")) if isinstance(parent, dict) else (None, None)
        if isinstance(share, int | float) and isinstance(step, int) and 0 < share < 1:
            found.append((float(share), branch, step))
    return found


def _text(file: Path) -> str:
    """Empty where it cannot be read."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _config(text: str, cache: dict[str, dict]) -> dict[str, Any]:
    """The resolved config. Runs that differ in their seeds alone share one parse."""
    body = _SEEDS.sub("", _SEAL.sub("", text))
    if body not in cache:
        cache[body] = _parse(body)
    return cache[body] | {name: int(value) for name, value in _SEEDS.findall(text)}


def _parse(text: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return {}
    node = content if isinstance(content, dict) else {}
    return {key: value for key, value in node.items() if key not in _NODES or isinstance(value, dict)}


def _sound(record: Provenance | None) -> Provenance | None:
    """None where a hand has put something of another kind in a field."""
    if record is None:
        return None
    fields = [(part, *field) for part in (record, record.facts) for field in _kinds(type(part))]
    if not all(isinstance(getattr(part, name), kinds) for part, name, kinds in fields):
        return None
    shapes = record.facts.paths.values()
    whole = all(isinstance(shape, list) and all(isinstance(n, int) for n in shape) for shape in shapes)
    named = all(isinstance(node, str) for node in record.touches)
    return record if whole and named and isinstance((record.parent or {"step": 0}).get("step"), int) else None


@functools.cache
def _kinds(record: type) -> list[tuple[str, tuple[type, ...]]]:
    """Field names of a record with the types that they may hold."""
    found = []
    for name, hint in get_type_hints(record).items():
        parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds = tuple(get_origin(part) or part for part in parts)
        found.append((name, (*kinds, int) if float in kinds else kinds))
    return found


def _unsealed(text: str) -> bool:
    """Whether a config carries a seal, its last line, that no longer fits."""
    seal = _SEAL.search(text)
    return seal is not None and hashlib.sha256(text[: seal.start()].encode()).hexdigest() not in seal[0]


def _contradicts(config: dict[str, Any], provenance: Provenance) -> bool:
    """Whether config.yaml names another run than run.json."""
    if not config:
        return True
    named = (
        (config.get("scale") or {}).get("name"),
        (config.get("variant") or {}).get("name"),
        config.get("seed"),
        config.get("data_seed"),
    )
    return named != (provenance.scale, provenance.variant, provenance.seed, provenance.data_seed)


def _from_path(run: RunDir) -> Provenance:
    """What the path says of a run whose run.json cannot be read."""
    scale, variant, seed = run.path.parts[-3:]
    number = int(seed.removeprefix("seed")) if seed.removeprefix("seed").isdigit() else -1
    facts = Facts(0, 0, 0, {}, 0.0, 0.0, {}, 0, 0, 0, 0, "", "")
    return Provenance("", "", "", "", scale, variant, number, number, 0, 0, facts, {})


def digest_of(content: Any) -> str:
    """sha256 of canonical JSON, as `harness.config.run_identity.digest` takes it of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
