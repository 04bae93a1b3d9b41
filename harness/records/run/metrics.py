"""Loss curves as Parquet parts with a checksum in the file name.

A part `steps-00000100-00000200.<sha256, 16 digits>.parquet` has the rows of steps (100, 200]; `evals-...`
parts have the evaluations of the same steps. A part is written before the manifest of the checkpoint at its
end, so a checkpoint is never ahead of its curve. A flipped bit shows because name and content disagree.

Polars is imported by the first function that needs it, since a worker takes its first step without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core import atomic_files
from harness.core.files.expansion import expansion_limit
from harness.core.paths import within_folder
from harness.records.paths import RunDir

if TYPE_CHECKING:
    import polars as pl

STEPS: dict[str, type] = {
    "step": int,
    "tokens": int,
    "flops": float,
    "loss": float,
    "grad_norm": float,
    "learning_rate": float,
    "device_seconds": float,
    "input_seconds": float,
    "expert_load": float,
    "expert_dropped": float,
}
"""Columns of the steps, one row per optimizer step. `loss`: nats per token of the batch before the update.
Cumulative over the run: `tokens`, `flops` (model FLOPs), `device_seconds` (wall seconds times devices, never
compared bit by bit) and the part of it that waited for input, `input_seconds` (null: not measured). Null
without experts: `expert_load`, the largest share of assignments to one expert of one layer times the number
of experts (1: balanced), and `expert_dropped`, the share of assignments beyond the experts' capacity."""

EVALS: dict[str, type] = {
    "step": int,
    "tokens": int,
    "flops": float,
    "domain": str,
    "loss": float,
    "bits_per_byte": float,
    "decayed": bool,
    "device_seconds": float,
}
"""Columns of the evaluations, one row per evaluation and domain. `decayed`: the schedule has ended."""

SCHEMAS = {"steps": STEPS, "evals": EVALS}
METRIC_PREFIX = "metric."
"""Beginning of the columns of a run's own metrics (`metrics`), behind all others: float64, and null in rows
without them."""
_NEEDED = ("step", "tokens", "flops", "loss")
_BAD_CHECKSUM = "the file does not match the checksum in its name"
CELL_BYTES = 8
"""Bytes of a number in memory. A file of a few kB can claim billions of rows."""
_NAME = re.compile(r"(steps|evals)-(\d{8})-(\d{8})\.([0-9a-f]{16})\.parquet")


@dataclass(frozen=True)
class MetricsPart:
    """Part of a curve: rows of steps (start, end]; `kind` is steps or evals."""

    kind: str
    start: int
    end: int
    checksum: str
    path: Path

    def fault(self) -> str:
        """Return why the part cannot be used; '' if it is intact."""
        try:
            within_folder(self.path.parent)
            within_folder(self.path)
            content = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            return error.strerror or "the file cannot be read"
        if hashlib.sha256(content).hexdigest()[:16] != self.checksum:
            return _BAD_CHECKSUM
        return _schema_fault(content, self.kind)


def _read_errors() -> tuple[type[BaseException], ...]:
    """Return the errors of reading a Parquet file. The Parquet reader panics on some malformed files."""
    import polars as pl

    return pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError


def _schema_fault(content: bytes, kind: str) -> str:
    """Return why the columns of a part cannot be used; '' if they can. Older parts lack newer columns."""
    import polars as pl

    try:
        columns = pl.read_parquet_schema(io.BytesIO(content))
    except _read_errors():
        return "the file cannot be read as Parquet"
    missing = [name for name in _NEEDED if name not in columns]
    expected = pl.Schema(SCHEMAS[kind] | dict.fromkeys(metric_columns(columns), float))
    wrong = [name for name, t in expected.items() if columns.get(name, t) != t]
    return f"wrong or missing columns: {', '.join(missing + wrong)}" if missing + wrong else ""


def metric_column(name: str) -> str:
    """Return the column of a run's own metric."""
    return METRIC_PREFIX + name


def metric_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns of a run's own metrics, in their order."""
    return [name for name in columns if name.startswith(METRIC_PREFIX)]


def list_parts(run: RunDir, kind: str) -> list[MetricsPart]:
    """Return the parts of a kind in the order of their steps, intact or not."""
    parts = []
    for path in run.metrics.glob(f"{kind}-*.parquet"):
        if match := _NAME.fullmatch(path.name):
            parts.append(MetricsPart(match[1], int(match[2]), int(match[3]), match[4], path))
    return sorted(parts, key=lambda part: (part.start, part.end))


def write_part(run: RunDir, kind: str, start: int, end: int, rows: list[dict]) -> MetricsPart:
    """Write the rows of steps (start, end] as one part."""
    import polars as pl

    buffer = io.BytesIO()
    own_columns = (column for row in rows for column in metric_columns(row))
    schema = SCHEMAS[kind] | dict.fromkeys(own_columns, float)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(buffer, compression="zstd")
    content = buffer.getvalue()
    checksum = hashlib.sha256(content).hexdigest()[:16]
    path = run.metrics / f"{kind}-{start:08d}-{end:08d}.{checksum}.parquet"
    atomic_files.write_bytes(path, content)
    return MetricsPart(kind, start, end, checksum, path)


def complete_until(run: RunDir) -> tuple[int, list[str]]:
    """Return the last step up to which the curve has no gap, and `path: reason` of each damaged part."""
    origin, ends, damage = start_step(run), [], []
    for kind in SCHEMAS:
        chain = _contiguous_parts(run, kind)
        ends.append(chain[-1].end if chain else origin)
        damage += [f"{part.path}: {why}" for part in list_parts(run, kind) if (why := part.fault())]
    return min(ends), damage


def truncate_after(run: RunDir, step: int) -> None:
    """Remove the rows after a step, and the damaged parts: a resumed run computes them again."""
    for kind in SCHEMAS:
        for part in list_parts(run, kind):
            intact = not part.fault()
            if intact and part.end <= step:
                continue
            if intact and part.start < step:  # across the step: keep its first rows
                rows = read_parts([part], kind).to_dicts()
                write_part(run, kind, part.start, step, [row for row in rows if row["step"] <= step])
            part.path.unlink(missing_ok=True)


def merge_parts(run: RunDir) -> None:
    """Merge the parts of a finished run into one per kind, written before the old ones are removed."""
    for kind in SCHEMAS:
        old = list_parts(run, kind)
        chain = _contiguous_parts(run, kind)
        if len(old) > 1 and chain:
            new = write_part(run, kind, chain[0].start, chain[-1].end, read_parts(chain, kind).to_dicts())
            for part in old:
                if part.path != new.path:
                    part.path.unlink(missing_ok=True)


def read_curve(run: RunDir, kind: str) -> pl.DataFrame:
    """Return the rows of a run or branch (columns: STEPS or EVALS) up to the first gap or damaged part."""
    return read_parts(_contiguous_parts(run, kind), kind)


def parts_from(run: RunDir, kind: str, step: int) -> list[MetricsPart]:
    """Return the parts that hold the rows from `step` on, up to the first gap or damaged part. Those before
    them are not opened."""
    end = max(step - 1, start_step(run))
    chain: list[MetricsPart] = []
    for part in sorted(list_parts(run, kind), key=lambda part: (part.start, -part.end)):
        is_next = part.start == end if chain else part.start <= end
        if is_next and part.end > end and not part.fault():
            chain.append(part)
            end = part.end
    return chain


def _contiguous_parts(run: RunDir, kind: str) -> list[MetricsPart]:
    return intact_parts(run, kind, start_step(run))[0]


def intact_parts(run: RunDir, kind: str, start: int, last: int = 0) -> tuple[list[MetricsPart], str]:
    """Return the intact, contiguous parts from a step on, and why they cannot be trusted up to step `last`.

    A kill inside `merge_parts` leaves overlapping parts: the longest one wins.
    """
    chain: list[MetricsPart] = []
    end, problem = start, ""
    parts = list_parts(run, kind)
    for part in sorted(parts, key=lambda part: (part.start, -part.end)):
        if fault := part.fault():
            gone = not part.path.exists()  # merged meanwhile
            problem = problem if gone else f"damaged metrics part {part.path.name}: {fault}"
        elif part.start == end and part.end > end:
            chain.append(part)
            end = part.end
    if end < last and not problem and (parts or kind == "evals"):  # a copy may leave out all steps
        problem = f"the metrics ({kind}) end at step {end} of {last}"
    return chain, problem


def start_step(run: RunDir) -> int:
    """Return the step before the first row: the fork for a branch, else 0."""
    record = atomic_files.read_checksummed_json(run.run)
    parent = record.get("parent") if record else None
    step = parent.get("step") if isinstance(parent, dict) else None
    return step if isinstance(step, int) else 0


def read_parts(chain: list[MetricsPart], kind: str) -> pl.DataFrame:
    """Return the rows of intact parts (columns: STEPS or EVALS)."""
    import polars as pl

    frames = []
    with contextlib.suppress(*_read_errors()):  # content that fits its checksum, and is malformed
        for part in chain:
            content = part.path.read_bytes()
            columns = max(len(SCHEMAS[kind]), len(pl.read_parquet_schema(io.BytesIO(content))))
            max_rows = int(expansion_limit(len(content)) / (CELL_BYTES * columns))
            frames.append(pl.read_parquet(io.BytesIO(content), n_rows=max_rows))
    # Older parts lack newer columns, which become null.
    return pl.concat([pl.DataFrame(schema=SCHEMAS[kind]), *frames], how="diagonal")
