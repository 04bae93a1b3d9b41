"""Log of a run as its tool wrote it, before its columns are mapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from harness.core.errors import UserError

Cell = str | float | int | bool | None


@dataclass(frozen=True)
class ImportedRun:
    """Log of one run, or a table of many runs, with the columns that its tool gave it."""

    place: str
    """Path for messages."""
    name: str
    """Text that `--name` is matched with: the path, or the path of a store and the name of the run in it."""
    kind: str
    """Format, such as `TensorBoard event folder`."""
    frame: pl.DataFrame
    """Rows in the order of writing."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Settings of the run, and its `run_name` and `run_id` where it has them."""
    has_named_loss: bool = False
    """True if a column `loss` is the one to judge, because a person named it: in a table of curves, or by an
    expression. In the log of a tool it may be the loss of training."""
    is_cut: bool = False
    """True if a file ends within a record: its writer was killed, or the file is damaged."""
    num_skipped: int = 0
    """Broken lines that were left out."""
    is_table: bool = False
    """True for a table in which a missing cell says nothing. In the log of a tool, an evaluation has the last
    tokens and learning rate that were logged before it."""


class NoEvaluationsError(UserError):
    """Log of a tool without the loss that is judged. Beside others it is a run that ended before."""


def rows_by_step(events: Iterable[tuple[int, str, Cell]]) -> list[dict[str, Cell]]:
    """Join (step, metric, value), in order of writing, to rows. A metric that comes again, as after a resume,
    begins a new row of its step."""
    rows: list[dict[str, Cell]] = []
    for step, metric, value in events:
        if not rows or rows[-1]["step"] != step or metric in rows[-1]:
            rows.append({"step": step})
        rows[-1][metric] = value
    return rows


def frame_of_rows(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as a table. A column with anything but numbers is text; nested values are left out."""
    columns: dict[str, list[Cell]] = {}
    height = 0
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str | float | int):
                cells = columns.setdefault(name, [])
                cells.extend([None] * (height - len(cells)))
                cells.append(value)
        height += 1
    return pl.DataFrame([_series(name, cells, height) for name, cells in columns.items()])


def run_without_evaluations(run: ImportedRun) -> ImportedRun:
    """Return a log of one row, which only declares that the run exists."""
    columns = ("step", "tokens", "loss")
    frame = pl.DataFrame([pl.Series(name, [None], pl.Float64) for name in columns])
    return dataclasses.replace(run, frame=frame, has_named_loss=True)


def flat_facts(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as texts, with dots in their names: `model.width`."""
    facts: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            facts |= flat_facts(value, f"{prefix}{name}.")
        elif isinstance(value, str | float | int):
            facts[f"{prefix}{name}"] = str(value)
    return facts


def _series(name: str, cells: list[Cell], height: int) -> pl.Series:
    cells = cells + [None] * (height - len(cells))
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int, float}:
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells], pl.Float64)
    return pl.Series(name, [None if cell is None else str(cell) for cell in cells], pl.String)
