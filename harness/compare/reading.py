"""A sweep as it lies on disk, read once: each run's facts and evaluations, and what is wrong with it.

Only evaluations are read, for all runs in one pass over their Parquet parts; step tables stay
on disk until a check asks for one. Nothing that is found here raises: it becomes a `problem`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from harness.records import metrics
from harness.records.atomic import read_json
from harness.records.configs import sealed
from harness.records.layout import RunDir, SweepDir
from harness.records.provenance import Facts, Provenance, read_provenance
from harness.records.status import State, Status, read_status

COLUMNS = ("step", "tokens", "flops", "domain", "loss", "decayed", "device_seconds")
_SEAL = re.compile(r"^# sha256 .*\n?\Z", re.MULTILINE)
_SEEDS = re.compile(r"^(seed|data_seed): *(-?\d+) *$", re.MULTILINE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Outcome:
    """What a decayed (or, with a flag, a hot) checkpoint scored."""

    loss: float
    by_domain: dict[str, float]
    step: int
    tokens: int
    flops: float
    device_seconds: float
    decayed: bool


@dataclass(frozen=True)
class Evals:
    """The evaluations of a run or a branch: one array a column, rows in order of writing."""

    columns: dict[str, np.ndarray]

    @property
    def empty(self) -> bool:
        return self.columns["step"].size == 0

    @cached_property
    def final(self) -> Outcome | None:
        """The last evaluation, averaged over all its domains."""
        if self.empty:
            return None
        last = self.columns["step"] == self.columns["step"].max()
        rows = {name: column[last].tolist() for name, column in self.columns.items()}
        by_domain = dict(zip(rows["domain"], rows["loss"], strict=True))
        step, tokens, flops, seconds = (rows[n][0] for n in ("step", "tokens", "flops", "device_seconds"))
        return Outcome(_mean(by_domain), by_domain, step, tokens, flops, seconds, all(rows["decayed"]))


@dataclass(frozen=True)
class RunRecord:
    """One run, read."""

    path: str
    directory: RunDir | None
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


def outcome_of(evals: Evals, domains: tuple[str, ...] = ()) -> Outcome | None:
    """The last evaluation: mean loss over the rule's domains (all if none are named).

    None where there is no evaluation, or one of the domains was not evaluated.
    """
    final = evals.final
    if final is None or not domains:
        return final
    if any(domain not in final.by_domain for domain in domains):
        return None
    chosen = {domain: final.by_domain[domain] for domain in domains}
    return dataclasses.replace(final, loss=_mean(chosen))


def _mean(by_domain: dict[str, float]) -> float:
    """Mean over domains in order of name, so that the sum's rounding does not hang on row order."""
    return sum(by_domain[domain] for domain in sorted(by_domain)) / len(by_domain)


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
    provenance = read_provenance(run)
    found = provenance or _from_path(run)
    evals, problem = tables[run.path]
    problem = problem or ("" if provenance else "run.json is missing, damaged or of another layout")
    examples = read_json(run.path / "examples.json")
    config = _config(run, configs)
    moved = (
        provenance is not None and (found.scale, found.variant, f"seed{found.seed}") != run.path.parts[-3:]
    )
    edited = moved or bool(provenance and _contradicts(config, provenance)) or _unsealed(run)
    return RunRecord(
        path, run, found, read_status(run), config, evals,
        examples if isinstance(examples, dict) else None,
        {share: tables[branch.path][0] for share, branch, _ in branches}, problem, edited,
    )  # fmt: skip


def _branches(run: RunDir) -> list[tuple[float, RunDir, int]]:
    """Share, directory and first step of each readable cooldown branch."""
    found = []
    for branch in run.branches():
        record = read_json(branch.run)
        parent = record.get("parent") if isinstance(record, dict) else None
        share, step = (parent.get("share"), parent.get("step")) if isinstance(parent, dict) else (None, None)
        if isinstance(share, int | float) and isinstance(step, int) and 0 < share < 1:
            found.append((float(share), branch, step))
    return found


def read_evals(origins: dict[Path, int]) -> dict[Path, tuple[Evals, str]]:
    """Evaluations of many runs at once, `{run path: (evals, problem)}`; `origins`: their first steps."""
    chains = {path: _chain(RunDir(path), origin) for path, origin in origins.items()}
    files = [part for chain, _ in chains.values() for part in chain]
    tables = _scan(files)
    result = {}
    for path, (chain, problem) in chains.items():
        parts = [tables.get(part) for part in chain]
        broken = any(part is None for part in parts)
        evals = _joined([part for part in parts if part is not None])
        result[path] = (evals, problem or ("a metrics part cannot be read" if broken else ""))
    return result


def _chain(run: RunDir, origin: int) -> tuple[list[Path], str]:
    """Intact parts that follow each other from the run's first step, and what was left out."""
    chain, end, problem = [], origin, ""
    for part in sorted(metrics.parts(run, "evals"), key=lambda part: (part.start, -part.end)):
        if not part.intact():
            problem = f"damaged metrics part {part.path.name}"
        elif part.start == end and part.end > end:
            chain.append(part.path)
            end = part.end
    return chain, problem


def _scan(files: list[Path]) -> dict[Path, dict[str, np.ndarray]]:
    """Columns by file. One scan for all; if one file spoils it, file by file without that one."""
    if not files:
        return {}
    try:
        return _tables(files)
    except (pl.exceptions.PolarsError, OSError):
        return {} if len(files) == 1 else {k: v for file in files for k, v in _scan([file]).items()}


def _tables(files: list[Path]) -> dict[Path, dict[str, np.ndarray]]:
    """One table a file: rows of a file stand together, and a file may have none."""
    frame = pl.scan_parquet(files, include_file_paths="path").select(*COLUMNS, "path").collect()
    lengths = frame["path"].rle().struct.unnest()
    columns = {name: frame[name].to_numpy() for name in COLUMNS}
    tables = {file: {name: column[:0] for name, column in columns.items()} for file in files}
    start = 0
    for length, path in zip(lengths["len"].to_list(), lengths["value"].to_list(), strict=True):
        tables[Path(path)] = {name: column[start : start + length] for name, column in columns.items()}
        start += length
    return tables


def _joined(tables: list[dict[str, np.ndarray]]) -> Evals:
    if len(tables) == 1:
        return Evals(tables[0])
    empty = {name: np.zeros(0, object if name == "domain" else float) for name in COLUMNS}
    return Evals({name: np.concatenate([empty[name], *[t[name] for t in tables]]) for name in COLUMNS})


def _config(run: RunDir, cache: dict[str, dict]) -> dict[str, Any]:
    """The resolved config. Runs that differ in their seeds alone share one parse."""
    try:
        text = run.config.read_text()
    except (OSError, UnicodeDecodeError):
        return {}
    body = _SEEDS.sub("", _SEAL.sub("", text))
    if body not in cache:
        cache[body] = _parse(body)
    return cache[body] | {name: int(value) for name, value in _SEEDS.findall(text)}


def _parse(text: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _unsealed(run: RunDir) -> bool:
    """Whether config.yaml carries a seal that no longer fits."""
    try:
        return bool(_SEAL.search(run.config.read_text())) and not sealed(run.config)
    except (OSError, UnicodeDecodeError):
        return False


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
    """sha256 of canonical JSON, as `harness.config.identity.digest` takes it of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
