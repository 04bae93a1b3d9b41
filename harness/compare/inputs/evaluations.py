"""The evaluations of many runs, read in few passes over their Parquet parts, and what a run scored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from harness.records.paths import RunDir
from harness.records.run import metrics

COLUMNS = ("step", "tokens", "flops", "domain", "loss", "decayed", "device_seconds")
AT_ONCE = 128
"""Files of one pass: enough to read them fast, few enough to hold them."""


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
    """The evaluations of a run or a branch that a verdict needs, those before the first step, of the last one
    and of the last one before the decay: one array a column, rows in order of writing."""

    columns: dict[str, np.ndarray]
    every_loss: np.ndarray | None = None
    """The losses of all evaluations; None where `columns` holds all of them."""

    @property
    def losses(self) -> np.ndarray:
        return self.columns["loss"] if self.every_loss is None else self.every_loss

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

    @cached_property
    def at_start(self) -> dict[str, float]:
        """Loss by domain before the first step; empty for a run that starts from no checkpoint."""
        first = self.columns["step"] == 0
        names, losses = (self.columns[name][first].tolist() for name in ("domain", "loss"))
        return dict(zip(names, losses, strict=True))


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


def read_evals(origins: dict[Path, int]) -> dict[Path, tuple[Evals, str]]:
    """Evaluations of many runs at once, `{run path: (evals, problem)}`; `origins`: their first steps."""
    chains = {path: _chain(RunDir(path), origin) for path, origin in origins.items()}
    files = [part for chain, _ in chains.values() for part in chain]
    tables = {
        path: table
        for start in range(0, len(files), AT_ONCE)
        for path, table in _scan(files[start : start + AT_ONCE]).items()
    }
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


def _scan(files: list[Path]) -> dict[Path, Evals]:
    """Evaluations by file. One scan for all; if one file spoils it, file by file without that one."""
    if not files:
        return {}
    try:
        return _tables(files)
    except (pl.exceptions.PolarsError, OSError):
        return {} if len(files) == 1 else {k: v for file in files for k, v in _scan([file]).items()}


def _tables(files: list[Path]) -> dict[Path, Evals]:
    """One table a file: rows of a file stand together, and a file may have none."""
    named = pl.col("domain", "path").cast(pl.Categorical)
    frame = pl.scan_parquet(files, include_file_paths="path").select(*COLUMNS, "path").with_columns(named)
    rows = frame.collect()
    spans = _spans(rows["path"].to_physical().to_numpy())
    step, hot, loss = rows["step"].to_numpy(), ~rows["decayed"].to_numpy(), rows["loss"].to_numpy()
    kept = [span.start + _needed(step[span], hot[span]) for span in spans]
    chosen = rows[np.concatenate([np.zeros(0, int), *kept])]
    columns = {name: chosen[name].to_numpy() for name in COLUMNS}
    tables = {file: Evals({name: column[:0] for name, column in columns.items()}) for file in files}
    start = 0
    for span, indices in zip(spans, kept, strict=True):
        own = slice(start, start + indices.size)
        losses = loss[span].copy()  # not a view, which would keep the whole frame alive
        path, start = Path(chosen["path"][start]), own.stop
        tables[path] = Evals({name: column[own] for name, column in columns.items()}, losses)
    return tables


def _spans(files: np.ndarray) -> list[slice]:
    """The stretches of equal values."""
    cuts = np.flatnonzero(np.diff(files)) + 1
    ends = [*cuts.tolist(), files.size] if files.size else []
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=False)]


def _needed(step: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Positions of the last evaluation, of the last one before the learning rate had decayed, and of one
    before the first step."""
    wanted = (step == step.max()) | (step == 0)
    hot = hot & (step > 0)
    if hot.any():
        wanted |= hot & (step == step[hot].max())
    return np.flatnonzero(wanted)


def _joined(tables: list[Evals]) -> Evals:
    if len(tables) == 1:
        return tables[0]
    empty = {name: np.zeros(0, object if name == "domain" else float) for name in COLUMNS}
    columns = {name: np.concatenate([empty[name], *[t.columns[name] for t in tables]]) for name in COLUMNS}
    return Evals(columns, np.concatenate([empty["loss"], *[t.losses for t in tables]]))
