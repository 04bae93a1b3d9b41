"""Evaluations of many runs, read in few passes over their Parquet parts, and the result of each run."""

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
FILES_PER_SCAN = 128
"""Number of files per pass: enough for fast reading, few enough for memory."""
MAX_ROWS = 20_000_000
"""Number of rows of a pass above which a part is malformed: a file of a few kB can claim billions."""


@dataclass(frozen=True)
class EvalResult:
    """Held-out losses of a checkpoint; `decayed` is false if its learning rate had not decayed."""

    loss: float
    by_domain: dict[str, float]
    step: int
    tokens: int
    flops: float
    device_seconds: float
    decayed: bool


@dataclass(frozen=True)
class Evals:
    """Evaluations of a run or branch that a verdict needs: at the start, before the decay and at the end."""

    columns: dict[str, np.ndarray]
    """Array of each column, rows in order of writing."""
    all_losses: np.ndarray | None = None
    """Losses of all evaluations; None if `columns` holds all of them."""

    @property
    def losses(self) -> np.ndarray:
        """Losses of all evaluations, in order of writing."""
        return self.columns["loss"] if self.all_losses is None else self.all_losses

    @property
    def empty(self) -> bool:
        """True if there is no evaluation."""
        return self.columns["step"].size == 0

    @cached_property
    def final(self) -> EvalResult | None:
        """Last evaluation, averaged over its domains; None if there is none."""
        if self.empty:
            return None
        last = self.columns["step"] == self.columns["step"].max()
        rows = {name: column[last].tolist() for name, column in self.columns.items()}
        by_domain = dict(zip(rows["domain"], rows["loss"], strict=True))
        step, tokens, flops, seconds = (rows[n][0] for n in ("step", "tokens", "flops", "device_seconds"))
        loss, decayed = _mean_loss(by_domain), all(rows["decayed"])
        return EvalResult(loss, by_domain, step, tokens, flops, seconds, decayed)

    @cached_property
    def at_start(self) -> dict[str, float]:
        """Loss by domain before the first step; empty if the run does not start from a checkpoint."""
        first = self.columns["step"] == 0
        names, losses = (self.columns[name][first].tolist() for name in ("domain", "loss"))
        return dict(zip(names, losses, strict=True))


def last_result(evals: Evals, domains: tuple[str, ...] = ()) -> EvalResult | None:
    """Return the last evaluation with the mean loss over `domains` (all if empty); None if one is missing."""
    final = evals.final
    if final is None or not domains:
        return final
    if any(domain not in final.by_domain for domain in domains):
        return None
    losses = {domain: final.by_domain[domain] for domain in domains}
    return dataclasses.replace(final, loss=_mean_loss(losses))


def _mean_loss(by_domain: dict[str, float]) -> float:
    """Average over domains in order of name, so that rounding does not depend on row order."""
    return sum(by_domain[domain] for domain in sorted(by_domain)) / len(by_domain)


def read_evals(spans: dict[Path, tuple[int, int]]) -> dict[Path, tuple[Evals, str]]:
    """Read the evaluations of many runs: `{run path: (evals, problem)}`.

    spans: their first steps, and the last steps of those that ended (0: training goes on).
    """
    parts = {path: metrics.intact_parts(RunDir(path), "evals", *span) for path, span in spans.items()}
    chains = {path: ([part.path for part in chain], problem) for path, (chain, problem) in parts.items()}
    files = [file for chain, _ in chains.values() for file in chain]
    tables = {
        path: table
        for start in range(0, len(files), FILES_PER_SCAN)
        for path, table in _read_parts(files[start : start + FILES_PER_SCAN]).items()
    }
    result = {}
    for path, (chain, problem) in chains.items():
        intact_tables = [tables[file] for file in chain if file in tables]
        unreadable = "a metrics part cannot be read" if len(intact_tables) < len(chain) else ""
        result[path] = (_concatenate(intact_tables), problem or unreadable)
    return result


def _read_parts(files: list[Path]) -> dict[Path, Evals]:
    """Read evaluations by file, in one scan; if a file cannot be read, file by file without that one."""
    if not files:
        return {}
    try:
        return _scan_parts(files)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return {} if len(files) == 1 else {k: v for file in files for k, v in _read_parts([file]).items()}


def _scan_parts(files: list[Path]) -> dict[Path, Evals]:
    """Read one table per file. The rows of a file are contiguous; a file may have none."""
    schema = pl.Schema({name: metrics.EVALS[name] for name in COLUMNS})  # without a run's own metrics
    scan = pl.scan_parquet(
        files, schema=schema, extra_columns="ignore", include_file_paths="path", glob=False
    )
    frame = scan.select(*COLUMNS, "path")
    if frame.select(pl.len()).collect().item() > MAX_ROWS:
        raise pl.exceptions.ComputeError("more rows than an evaluation has")
    rows = frame.with_columns(pl.col("domain", "path").cast(pl.Categorical)).collect()
    if any(rows[name].null_count() for name in ("step", "tokens", "domain", "decayed")):
        raise pl.exceptions.ComputeError("a row without step, tokens, domain or mark of the decay")
    spans = _equal_value_slices(rows["path"].to_physical().to_numpy())
    step, hot, loss = rows["step"].to_numpy(), ~rows["decayed"].to_numpy(), rows["loss"].to_numpy()
    kept_rows = [span.start + _needed_rows(step[span], hot[span]) for span in spans]
    selection = rows[np.concatenate([np.zeros(0, int), *kept_rows])]
    columns = {name: selection[name].to_numpy() for name in COLUMNS}
    tables = {file: Evals({name: column[:0] for name, column in columns.items()}) for file in files}
    start = 0
    for span, indices in zip(spans, kept_rows, strict=True):
        file_rows = slice(start, start + indices.size)
        losses = loss[span].copy()  # not a view, which would keep the whole frame alive
        path, start = Path(selection["path"][start]), file_rows.stop
        tables[path] = Evals({name: column[file_rows] for name, column in columns.items()}, losses)
    return tables


def _equal_value_slices(files: np.ndarray) -> list[slice]:
    """Split an array into slices of equal consecutive values."""
    cuts = np.flatnonzero(np.diff(files)) + 1
    ends = [*cuts.tolist(), files.size] if files.size else []
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=False)]


def _needed_rows(step: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Return the row indices of the last step, of the last step before the decay ended, and of step 0."""
    mask = (step == step.max()) | (step == 0)
    hot = hot & (step > 0)
    if hot.any():
        mask |= hot & (step == step[hot].max())
    return np.flatnonzero(mask)


def _concatenate(tables: list[Evals]) -> Evals:
    if len(tables) == 1:
        return tables[0]
    empty = {name: np.zeros(0, object if name == "domain" else float) for name in COLUMNS}
    columns = {name: np.concatenate([empty[name], *[t.columns[name] for t in tables]]) for name in COLUMNS}
    return Evals(columns, np.concatenate([empty["loss"], *[t.losses for t in tables]]))
