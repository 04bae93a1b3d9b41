"""Cells of logs as numbers and truth values, and the sentence with the way out where they are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from harness.core.errors import UserError

_MAX_EXACT_INTEGER = 2.0**53
"""Bound below which float64 represents every integer exactly."""
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
_THOUSANDS = " \u00a0\u202f_'\u2019"
"""Signs that part thousands whatever the decimal mark is."""
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_GROUPED = re.compile(rf"[-+]?\d{{1,3}}([,.{_THOUSANDS}]\d{{3}})+([.,]\d*)?")
_TIME = re.compile(r"\d{4}-\d\d?-\d\d?.*|\d+:\d+.*|\d\d?[/.]\d\d?[/.]\d{2,4}.*")


@dataclass(frozen=True)
class CellForms:
    """Forms of numbers and empty cells in a log: the options `--decimal` and `--empty`."""

    decimal: str | None = None
    """Decimal mark, `comma` or `point`, where other signs between digits part thousands; None: a point, and
    nothing parts thousands."""
    empty_words: frozenset[str] = frozenset()
    """Words in lower case that stand for an empty cell."""

    @property
    def are_plain(self) -> bool:
        """True if cells are read as programs write them."""
        return self.decimal is None and not self.empty_words

    def without_empty_words(self, texts: pl.Expr) -> pl.Expr:
        """Return stripped texts, null for blank ones and for words that stand for an empty cell."""
        texts = texts.str.strip_chars()
        is_empty = texts == ""
        if self.empty_words:
            is_empty |= texts.str.to_lowercase().is_in([*self.empty_words])
        return pl.when(~is_empty).then(texts)

    def plain_numbers(self, cells: pl.Series) -> pl.Series:
        """Return texts of numbers with a decimal point and without signs between thousands."""
        if self.decimal is None or cells.dtype != pl.String:
            return cells
        mark, thousands = (",", ".") if self.decimal == "comma" else (".", ",")
        sign = re.escape(thousands)
        grouped = rf"^[-+]?[1-9]\d{{0,2}}([{sign}{_THOUSANDS}]\d{{3}})+({re.escape(mark)}\d*)?$"
        name = cells.name
        plain = (
            pl.when(pl.col(name).str.contains(grouped))
            .then(pl.col(name).str.replace_all(f"[{sign}{_THOUSANDS}]", ""))
            .when(pl.col(name).str.contains(sign))
            .then(pl.format("{}?", name))
            .otherwise(name)
        )
        if mark == ",":
            plain = plain.str.replace(",", ".", literal=True)
        return cells.to_frame().select(plain.alias(name)).to_series()


CellParser = Callable[[pl.DataFrame, str, str, CellForms], pl.Series]
"""Function of rows, column, name of the table and forms that returns the typed column."""


def parse_texts(rows: pl.DataFrame, column: str, name: str, forms: CellForms) -> pl.Series:
    """Return a column as texts."""
    return rows[column].cast(pl.String)


def parse_numbers(rows: pl.DataFrame, column: str, name: str, forms: CellForms) -> pl.Series:
    """Return a column as float64. Raises UserError, with row, column and way out, for any other cell."""
    cells = rows[column]
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise UserError(
            f"{name}: the column '{column}' holds {cells.dtype}. It must hold numbers; name another with "
            f"--map {column}=COLUMN."
        )
    values = forms.plain_numbers(cells).cast(pl.Float64, strict=False)
    wrong = values.is_null() & cells.is_not_null()
    if wrong.any():
        first = str(cells.filter(wrong)[0])
        raise_for_first(rows, column, wrong, name, f"is {_way_out(first, column)}")
    return values


def _way_out(cell: str, column: str) -> str:
    """Return what a cell is instead of a number, and what mends it."""
    if _TIME.fullmatch(cell):
        return f"a time, not a number: name the column of numbers with --map {column}=COLUMN"
    if column in ("seed", "data_seed"):
        return f"not a number; --map {column}={column} numbers the names of runs in sorted order"
    if _DECIMAL_COMMA.fullmatch(cell):
        hint = "; --decimal point if it parts thousands" * bool(_GROUPED.fullmatch(cell))
        return f"not a number: write a decimal point, not a comma, or say --decimal comma{hint}"
    if _GROUPED.fullmatch(cell):
        mark = "comma" if "." in cell.rpartition(",")[0] or cell.count(".") > 1 else "point"
        return f"not a number: write no sign between thousands, or say --decimal {mark}"
    if any(sign.isdigit() for sign in cell):
        return f"not a number: write it plainly, or name another column with --map {column}=COLUMN"
    return f"not a number: leave the cell empty, or say --empty '{cell}' if it means that"


def parse_integers(rows: pl.DataFrame, column: str, name: str, forms: CellForms) -> pl.Series:
    """Return a column as int64. Whole numbers may be written as floats."""
    cells = rows[column]
    if cells.dtype == pl.String or cells.dtype.is_integer():
        integers = cells.cast(pl.Int64, strict=False)
        if forms.decimal is None and integers.null_count() == cells.null_count():
            return integers
    values = parse_numbers(rows, column, name, forms)
    exact = values.is_finite() & (values == values.round()) & (values.abs() < _MAX_EXACT_INTEGER)
    way_out = f"; --map {column}={column} numbers the names of runs in sorted order" * ("seed" in column)
    raise_for_first(rows, column, ~exact, name, f"is not a whole number{way_out}")
    return values.cast(pl.Int64)


def parse_booleans(rows: pl.DataFrame, column: str, name: str, forms: CellForms) -> pl.Series:
    """Return a column as truth values: true, yes and 1, false, no and 0."""
    cells = rows[column].cast(pl.String).str.to_lowercase()
    values = cells.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    reason = "is neither true nor false: write true or false, or leave the cell empty"
    raise_for_first(rows, column, values.is_null() & cells.is_not_null(), name, reason)
    return values


def parse_shares(rows: pl.DataFrame, column: str, name: str, forms: CellForms) -> pl.Series:
    """Return a column of shares between 0 and 1, both excluded."""
    values = parse_numbers(rows, column, name, forms)
    wrong = ~((values > 0) & (values < 1))
    reason = "is not between 0 and 1. Give the share of the tokens; leave it empty on rows of the run itself."
    raise_for_first(rows, column, wrong, name, reason)
    return values


def raise_for_first(rows: pl.DataFrame, column: str, wrong: pl.Series, name: str, why: str) -> None:
    """Raise UserError for the first row in which `wrong` is true; null counts as false."""
    wrong_rows = rows.filter(wrong.fill_null(False))
    if wrong_rows.height:
        value = "" if wrong_rows[column][0] is None else f"={wrong_rows[column][0]}"
        raise UserError(f"{name}: row {wrong_rows['row'][0]}: {column}{value} {why}")
