"""Reader for the runs of a sweep: facts, evaluations and problems of each run.

Step tables stay unread until a check needs them. Damaged files do not raise: each fault becomes a `problem`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import yaml

from harness.compare.inputs.evaluations import Evals, last_result, read_evals
from harness.compare.inputs.json_values import dict_or_empty
from harness.config.renamed_keys import with_new_names
from harness.core.atomic_files import read_checksummed_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run.example_hash import read_examples
from harness.records.run.provenance import Facts, Provenance, read_provenance
from harness.records.run.status import State, Status, read_status
from harness.records.run.training_target import END

UNREADABLE_RUN = "run.json is missing, damaged or of another version"
_CHECKSUM = re.compile(r"^# sha256 .*\n?\Z", re.MULTILINE)
_NODES = ("scale", "variant", "model", "data", "optimizer", "schedule", "rule")
_SEEDS = re.compile(r"^(seed|data_seed): *(-?\d+) *$", re.MULTILINE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunRecord:
    """Records of one run, read from disk or from a table."""

    path: str
    directory: RunDir | None
    """Run directory; None for a run from a table, and if run.json is damaged."""
    provenance: Provenance
    status: Status
    config: dict[str, Any]
    evals: Evals
    examples: dict[str, Any] | None
    branches: dict[float, Evals] = field(default_factory=dict)
    problem: str = ""
    edited_by_hand: bool = False
    """True if files of the run contradict each other: one was changed, moved or copied by hand."""

    @property
    def key(self) -> tuple[str, str, int]:
        """(scale, variant, seed)."""
        return self.provenance.scale, self.provenance.variant, self.provenance.seed

    @cached_property
    def diverged(self) -> bool:
        """True if the run ended as diverged, or has a NaN or infinite loss at its end."""
        if self.status.state is State.diverged:
            return True
        final = self.evals.final
        return bool(self.complete and final and not np.isfinite(list(final.by_domain.values())).all())

    @property
    def complete(self) -> bool:
        """True if the run is finished and has evaluations."""
        return self.status.state is State.finished and not self.evals.empty

    def decayed_loss(self, domains: tuple[str, ...]) -> float | None:
        """Return the loss at the decayed end, over `domains`; None if it is missing or the run diverged."""
        result = last_result(self.evals, domains) if self.complete and not self.diverged else None
        return result.loss if result and result.decayed else None

    def examples_until(self, share: float) -> dict[str, Any] | None:
        """Return the hash of the examples read up to the end, or up to the end of the branch at `share`."""
        if share == END or self.directory is None:
            return self.examples
        return read_examples(self.directory.branch(share))


def read_runs(sweep: SweepDir) -> list[RunRecord]:
    """Read every launched run, in order of path."""
    directories = list(sweep.runs())
    branches = {run.path: _branches(run) for run in directories}
    first_steps = {run.path: 0 for run in directories}
    first_steps |= {branch.path: step for group in branches.values() for _, branch, step in group}
    tables = read_evals(first_steps)
    configs: dict[str, dict] = {}
    return [_record(sweep, run, branches[run.path], tables, configs) for run in directories]


def _record(sweep: SweepDir, run: RunDir, branches, tables, configs) -> RunRecord:
    path = run.path.relative_to(sweep.path).as_posix()
    provenance = _well_typed(read_provenance(run))
    evals, problem = tables[run.path]
    problem = problem or ("" if provenance else UNREADABLE_RUN)
    try:
        text = run.config.read_text()
    except (OSError, UnicodeDecodeError):
        text = ""
    config = _parse_cached(text, configs)
    edited_by_hand = _fails_checksum(text)
    if provenance is not None:
        place = provenance.scale, provenance.variant, f"seed{provenance.seed}"
        edited_by_hand |= place != run.path.parts[-3:] or _names_another_run(config, provenance)
    return RunRecord(
        path, run if provenance else None, provenance or _provenance_from_path(run), read_status(run), config,
        evals, read_examples(run), {share: tables[branch.path][0] for share, branch, _ in branches},
        problem, edited_by_hand,
    )  # fmt: skip


def _branches(run: RunDir) -> list[tuple[float, RunDir, int]]:
    """Return share, directory and first step of each readable cooldown branch."""
    branches = []
    for branch in run.branches():
        parent = dict_or_empty((read_checksummed_json(branch.run) or {}).get("parent"))
        share, step = parent.get("share"), parent.get("step")
        if isinstance(share, int | float) and isinstance(step, int) and 0 < share < 1:
            branches.append((float(share), branch, step))
    return branches


def _parse_cached(text: str, cache: dict[str, dict]) -> dict[str, Any]:
    """Parse a resolved config. Runs that differ only in their seeds share one parse."""
    body = _SEEDS.sub("", _CHECKSUM.sub("", text))
    if body not in cache:
        try:
            content = yaml.load(body, _LOADER)
        except yaml.YAMLError:
            content = None
        node = with_new_names(content) if isinstance(content, dict) else {}
        cache[body] = {k: value for k, value in node.items() if k not in _NODES or isinstance(value, dict)}
    return cache[body] | {name: int(value) for name, value in _SEEDS.findall(text)}


def _well_typed(record: Provenance | None) -> Provenance | None:
    """Return the record, or None if a field has a value of the wrong type."""
    if record is None:
        return None
    fields = [(part, *field) for part in (record, record.facts) for field in _field_types(type(part))]
    if not all(isinstance(getattr(part, name), kinds) for part, name, kinds in fields):
        return None
    shapes = record.facts.paths.values()
    shapes_ok = all(isinstance(shape, list) and all(isinstance(n, int) for n in shape) for shape in shapes)
    touches_ok = all(isinstance(node, str) for node in record.touches)
    parent_ok = isinstance((record.parent or {"step": 0}).get("step"), int)
    return record if shapes_ok and touches_ok and parent_ok else None


@functools.cache
def _field_types(record: type) -> list[tuple[str, tuple[type, ...]]]:
    """Return the field names of a record type with the types that they may hold."""
    field_types = []
    for name, hint in get_type_hints(record).items():
        parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds = tuple(get_origin(part) or part for part in parts)
        field_types.append((name, (*kinds, int) if float in kinds else kinds))
    return field_types


def _fails_checksum(text: str) -> bool:
    """Return True if the checksum in the last line of a config no longer matches."""
    line = _CHECKSUM.search(text)
    return line is not None and hashlib.sha256(text[: line.start()].encode()).hexdigest() not in line[0]


def _names_another_run(config: dict[str, Any], provenance: Provenance) -> bool:
    """Return True if config.yaml and run.json name different runs."""
    names = [(config.get(node) or {}).get("name") for node in ("scale", "variant")]
    run = (*names, config.get("seed"), config.get("data_seed"))
    return run != (provenance.scale, provenance.variant, provenance.seed, provenance.data_seed)


def _provenance_from_path(run: RunDir) -> Provenance:
    """Derive the provenance of a run with an unreadable run.json from its path."""
    scale, variant, seed = run.path.parts[-3:]
    number = int(seed.removeprefix("seed")) if seed.removeprefix("seed").isdigit() else -1
    facts = Facts(0, 0, 0, {}, 0.0, 0.0, {}, 0, 0, 0, 0, "", "")
    return Provenance("", "", "", "", scale, variant, number, number, 0, 0, facts, {})
