"""Reader for the runs of a sweep: facts, evaluations and problems of each run.

Step tables stay unread until a check needs them. Damaged files do not raise: each fault becomes a `problem`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.compare.inputs.evaluations import Evals, last_result, read_evals
from harness.compare.inputs.json_values import dict_or_empty
from harness.compare.inputs.run_terms import RunTerms, make_terms
from harness.config.renamed_keys import with_new_names
from harness.core.atomic_files import read_record
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import MAX_BYTES, parse_config
from harness.records.run.example_hash import read_examples
from harness.records.run.integrity import damaged_records
from harness.records.run.provenance import Facts, Provenance, read_provenance
from harness.records.run.status import State, Status, read_intact_status
from harness.records.run.training_target import END
from harness.records.typed_values import fits

UNREADABLE_RUN = "run.json is missing, damaged or of another version"
_CHECKSUM = re.compile(r"^# sha256 .*\n?\Z", re.MULTILINE)
_NODES = ("scale", "variant", "model", "data", "optimizer", "schedule", "rule")
_SEEDS = re.compile(r"^(seed|data_seed): *(-?\d{1,18}) *$", re.MULTILINE)


@dataclass(frozen=True)
class _Branches:
    """Cooldown branches of one run."""

    paths: set[Path]
    """Folders on disk."""
    readable: list[tuple[float, RunDir, int]]
    """Share, directory and first step of those with a readable run.json."""


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
    decay_unverified: bool = False
    """True if nothing in a log shows, and nobody vouches, that the learning rate had decayed at its end."""
    unit_problem: str = ""
    """Sentence that says why the values of a log can be no loss in the control's unit; empty if they can."""

    @property
    def key(self) -> tuple[str, str, int]:
        """(scale, variant, seed)."""
        return self.provenance.scale, self.provenance.variant, self.provenance.seed

    @cached_property
    def terms(self) -> RunTerms:
        """Return what the run was given before its first step."""
        record = self.provenance
        from_log = self.directory is None
        return make_terms(
            record.facts, self.config, record.touches, record.data_seed, record.tokens, from_log
        )

    @cached_property
    def diverged(self) -> bool:
        """True if the run ended as diverged, or has a NaN or infinite loss at its end."""
        if self.status.state is State.diverged:
            return True
        final = self.evals.final
        infinite = final is not None and not np.isfinite(list(final.by_domain.values())).all()
        return self.complete and (infinite or (self.directory is None and _lost_its_gain(self.evals)))

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


LOST_SHARE = 0.5
"""Share of its improvement that a logged run has lost at its end if it diverged."""


def _lost_its_gain(evals: Evals) -> bool:
    """Return True if the loss at the end has risen from its minimum by LOST_SHARE of what it had fallen. A
    log has no state that says so."""
    domains = evals.columns["domain"]
    if not domains.size:
        return False
    losses = evals.columns["loss"][domains == domains[0]]
    losses = losses[np.isfinite(losses)]
    return losses.size > 2 and bool(losses[-1] - losses.min() > LOST_SHARE * (losses[0] - losses.min()) > 0)


def read_runs(sweep: SweepDir) -> list[RunRecord]:
    """Read every launched run, in order of path."""
    directories = list(sweep.runs())
    branches = {run.path: _branches(run) for run in directories}
    starts = {run.path: 0 for run in directories}
    starts |= {branch.path: step for group in branches.values() for _, branch, step in group.readable}
    # Statuses first: a run may go on meanwhile, and its curve must reach the step of its status.
    statuses = {path: read_intact_status(RunDir(path)) for path in starts}
    spans = {path: (start, _last_step(statuses[path])) for path, start in starts.items()}
    tables = read_evals(spans)
    faults = {
        path: [*filter(None, [tables[path][1]]), *damaged_records(RunDir(path), *span, statuses[path])]
        for path, span in spans.items()
    }
    configs: dict[str, dict] = {}
    return [
        _record(sweep, run, statuses[run.path] or Status(), branches[run.path], tables, faults, configs)
        for run in directories
    ]


def _last_step(status: Status | None) -> int:
    """Return the step that the curve of an ended run must reach; 0 if training goes on."""
    return status.step if status and status.state.ended else 0


def _record(
    sweep: SweepDir, run: RunDir, status: Status, branches: _Branches, tables, faults, configs
) -> RunRecord:
    path = run.path.relative_to(sweep.path).as_posix()
    provenance = read_provenance(run)
    text = read_record(run.config, MAX_BYTES) or ""
    config = _parse_cached(text, configs)
    edited_by_hand = _fails_checksum(text)
    problems = [UNREADABLE_RUN] * (provenance is None) + faults[run.path]
    problems += ["config.yaml is missing or damaged"] * (edited_by_hand or not config)
    problems += _branch_faults(run, status, branches, faults, config)
    if provenance is not None:
        place = provenance.scale, provenance.variant, f"seed{provenance.seed}"
        edited_by_hand |= place != run.path.parts[-3:] or _names_another_run(config, provenance)
    return RunRecord(
        path, run if provenance else None, provenance or _provenance_from_path(run), status, config,
        tables[run.path][0], read_examples(run),
        {share: tables[branch.path][0] for share, branch, _ in branches.readable}, "; ".join(problems),
        edited_by_hand,
    )  # fmt: skip


def _branches(run: RunDir) -> _Branches:
    directories, readable = run.branches(), []
    for branch in directories:
        record = read_provenance(branch)
        parent = (record.parent if record else None) or {}
        share, step = parent.get("share"), parent.get("step")
        if isinstance(share, int | float) and isinstance(step, int) and 0 < share < 1:
            readable.append((float(share), branch, step))
    return _Branches({branch.path for branch in directories}, readable)


def _branch_faults(
    run: RunDir, status: Status, branches: _Branches, faults: dict[Path, list[str]], config: dict[str, Any]
) -> list[str]:
    """Return a sentence for each damaged record of a run's branches, and for branches that it must have."""
    readable, paths = {branch.path for _, branch, _ in branches.readable}, {*branches.paths}
    shares = dict_or_empty(config.get("schedule")).get("branches")
    if status.state is State.finished and isinstance(shares, list):
        paths |= {run.branch(share).path for share in shares if fits(share, float) and 0 < share < END}
    return [
        *(f"{path.name}/{UNREADABLE_RUN}" for path in sorted(paths - readable)),
        *(f"{path.name}: {fault}" for path in sorted(readable) for fault in faults[path]),
    ]


def _parse_cached(text: str, cache: dict[str, dict]) -> dict[str, Any]:
    """Parse a resolved config. Runs that differ only in their seeds share one parse."""
    body = _SEEDS.sub("", _CHECKSUM.sub("", text))
    if body not in cache:
        try:
            content = parse_config(body)
        except (yaml.YAMLError, ValueError, RecursionError):
            content = None
        node = with_new_names(content) if isinstance(content, dict) else {}
        cache[body] = {k: value for k, value in node.items() if k not in _NODES or isinstance(value, dict)}
    return cache[body] | {name: int(value) for name, value in _SEEDS.findall(text)}


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
    digits = seed.removeprefix("seed")
    number = int(digits) if digits.isdecimal() and len(digits) < 19 else -1
    facts = Facts(0, 0, 0, {}, 0.0, 0.0, {}, 0, 0, 0, 0, "", "")
    return Provenance("", "", "", "", scale, variant, number, number, 0, 0, facts, {})
