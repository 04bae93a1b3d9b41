"""Rows of a log that count: the comparisons of `--filter`, on columns or on settings of a run."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from harness.compare.inputs.importers.imported_run import ImportedRun
from harness.core.errors import UserError, did_you_mean

_FORM = re.compile(r"\s*(?P<column>.+?)\s*(?P<sign>!=|>=|<=|==|=|>|<)\s*(?P<value>.*?)\s*")
_ORDER: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
_BOOLEANS = ("true", "false")
_MAX_VALUES = 6
"""Number of values of a column that a message lists."""


@dataclass(frozen=True)
class RowFilter:
    """Comparison that the rows of a log must pass."""

    text: str
    """Comparison as it was written, for messages."""
    column: str
    sign: str
    value: str
    """Text or number that cells are compared with; empty for an empty cell."""

    def condition(self, cells: pl.Expr) -> pl.Expr:
        """Return whether a cell passes. An empty cell equals the empty value alone, and has no order."""
        number = _number(self.value)
        numbers = cells.cast(pl.Float64, strict=False)
        if self.sign in _ORDER and number is not None:
            return _ORDER[self.sign](numbers, number).fill_null(False)
        texts = cells.cast(pl.String).str.strip_chars().fill_null("")
        value = self.value
        if value.lower() in _BOOLEANS:
            texts, value = texts.str.to_lowercase(), value.lower()
        equal = texts == value
        if number is not None:
            equal |= (numbers == number).fill_null(False)
        return ~equal if self.sign == "!=" else equal


def parse_filters(texts: Sequence[str]) -> tuple[RowFilter, ...]:
    """Return the comparisons of `--filter`. Raises UserError for one that is none."""
    return tuple(map(_parse, texts))


def _parse(text: str) -> RowFilter:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UserError(f"--filter {text}: write COLUMN=VALUE, such as split=val (also !=, <, <=, >, >=)")
    sign = match["sign"].replace("==", "=")
    if sign in _ORDER and _number(match["value"]) is None:
        raise UserError(f"--filter {text}: '{match['value']}' is not a number. Only = and != compare texts.")
    return RowFilter(text, match["column"], sign, match["value"].strip("'\""))


def filter_runs(
    runs: Iterable[ImportedRun], filters: Sequence[RowFilter]
) -> tuple[list[ImportedRun], list[str]]:
    """Return the logs with the rows that pass all filters, without logs of which none is left, and a note.

    A log without the column, as a run without the setting, passes a `!=` alone. Raises UserError for a column
    that no log has, and if no row is left.
    """
    all_runs = [*runs]
    for row_filter in filters:
        _check_column(row_filter, all_runs)
    num_rows = sum(run.frame.height for run in all_runs)
    remaining = all_runs
    for row_filter in filters:
        passing_runs = [_passing(run, row_filter) for run in remaining]
        if not any(run.frame.height for run in passing_runs):
            raise UserError(f"--filter {row_filter.text}: no row is left; {_values(row_filter, remaining)}")
        remaining = [run for run in passing_runs if run.frame.height]
    num_kept = sum(run.frame.height for run in remaining)
    return remaining, [f"--filter leaves {num_kept:,} of {num_rows:,} rows"] * bool(filters)


def _passing(run: ImportedRun, row_filter: RowFilter) -> ImportedRun:
    name = _column_name(run, row_filter)
    if name is not None:
        cells = pl.col(name)
    else:
        cells = pl.lit(run.facts.get(row_filter.column), pl.String)
    return dataclasses.replace(run, frame=run.frame.filter(row_filter.condition(cells)))


def _column_name(run: ImportedRun, row_filter: RowFilter) -> str | None:
    """Return the column of a filter under its name in the log; None if the log has no such column."""
    return next((name for name in run.frame.columns if name.strip() == row_filter.column), None)


def _check_column(row_filter: RowFilter, runs: Sequence[ImportedRun]) -> None:
    """Raise UserError if no log has the column or the setting."""
    names = {name.strip() for run in runs for name in (*run.frame.columns, *run.facts)}
    if names and row_filter.column not in names:
        hint = did_you_mean(row_filter.column, names)
        place = f"{runs[0].place}: " if len({run.place for run in runs}) == 1 else ""
        raise UserError(
            f"{place}--filter {row_filter.text}: there is no column or setting '{row_filter.column}'; {hint}"
        )


def _values(row_filter: RowFilter, runs: Sequence[ImportedRun]) -> str:
    """Return the first values that the column or setting has."""
    values: dict[str, None] = {}
    for run in runs:
        name = _column_name(run, row_filter)
        cells = run.frame[name].unique(maintain_order=True).to_list() if name is not None else []
        values |= dict.fromkeys(str(cell) for cell in (*cells, run.facts.get(row_filter.column)) if cell)
    listing = ", ".join([*values][:_MAX_VALUES]) + ", ..." * (len(values) > _MAX_VALUES)
    return f"{row_filter.column} has {listing}" if values else f"{row_filter.column} is empty everywhere"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
