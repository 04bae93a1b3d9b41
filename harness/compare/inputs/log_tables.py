"""Reader for the logs of any trainer: frames and files as one table with checked cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from harness.core.errors import UserError

REQUIRED = ("variant", "scale", "seed", "step", "tokens", "loss")
OPTIONAL = (
    "domain", "flops", "parameters", "decayed", "branch", "data_seed", "seconds", "learning_rate", "unit",
)  # fmt: skip
SYNONYMS = {"lr": "learning_rate"}
"""Names of columns that mean another one, where that one is absent."""
RUN_COLUMNS = ("scale", "variant", "seed")
_TEXT_COLUMNS = ("variant", "scale", "domain", "unit")
_INTEGER_COLUMNS = ("seed", "step", "tokens", "data_seed")
_NON_NEGATIVE_COLUMNS = ("step", "tokens", "flops", "parameters", "seconds", "learning_rate")
_MAX_EXACT_INTEGER = 2.0**53
"""Bound below which float64 represents every integer exactly."""
_EMPTY_WORDS = ("none", "null", "n/a", "na", "-", "--", "#n/a")
"""Words for a missing value. They are refused, since `nan` is a loss that diverged."""
_DECIMAL_COMMA = r"^[-+]?\d+,\d+$"
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_SCHEMA = {
    **dict.fromkeys(_TEXT_COLUMNS, pl.String),
    **dict.fromkeys(_INTEGER_COLUMNS, pl.Int64),
    **dict.fromkeys(("loss", "flops", "parameters", "branch", "seconds", "learning_rate"), pl.Float64),
    "decayed": pl.Boolean,
}


@dataclass(frozen=True)
class LogTable:
    """Table of curves, and the path or word that stands for it in messages."""

    name: str
    frame: pl.DataFrame


def read_tables(tables: Iterable[LogTable], keep: str | None = None) -> pl.DataFrame:
    """Read all tables as one, with the typed columns of REQUIRED and OPTIONAL (null if absent).

    Columns may be in any order; others are ignored. Blank lines and exact repetitions are dropped. Whole
    numbers may be written as floats, and losses may be nan or inf. A row with an empty loss only declares
    that the run exists. Of several losses of one step, as after a resume, `keep` says which counts, "first"
    or "last". Raises UserError, naming file, row and column, for a cell that cannot be read and, without
    `keep`, for two losses of one step.
    """
    frames = [_parse_columns(table.frame, table.name) for table in tables]
    if not any(frame.height for frame in frames):
        raise UserError(
            "--curves: no rows to compare. Give CSV, JSON lines or Parquet files with the columns "
            f"{', '.join(REQUIRED)}."
        )
    frame = _drop_repetitions(pl.concat([pl.DataFrame(schema=_SCHEMA), *frames], how="diagonal"), keep)
    return frame.with_columns(_one_value_per_run(frame, column) for column in ("parameters", "data_seed"))


def _parse_columns(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Convert the known columns to their types."""
    frame = _strip_blanks(frame, name)
    frame = _rename_synonyms(frame)
    frame = frame.select(column for column in (*REQUIRED, *OPTIONAL) if column in frame.columns)
    rows = frame.with_row_index("row", 1).filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    parsed = [_PARSERS.get(column, _parse_numbers)(rows, column, name) for column in frame.columns]
    typed = pl.DataFrame(parsed, schema={column: _SCHEMA[column] for column in frame.columns})
    for column in [column for column in _NON_NEGATIVE_COLUMNS if column in typed.columns]:
        values = typed[column].cast(pl.Float64)
        wrong = ~(values.is_finite() & (values >= 0))
        _raise_for_first(rows, column, wrong, name, "must be finite and not negative")
    for column in RUN_COLUMNS:
        _raise_for_first(rows, column, typed[column].is_null(), name, "is empty")
    for column in ("step", "tokens"):
        lacks_value = typed[column].is_null() & typed["loss"].is_not_null()
        _raise_for_first(rows, column, lacks_value, name, "is empty")
    return typed


def _rename_synonyms(frame: pl.DataFrame) -> pl.DataFrame:
    """Give columns of numbers under another name the name that is known here."""
    for name, known_name in SYNONYMS.items():
        if name in frame.columns and known_name not in frame.columns:
            cells = frame[name].drop_nulls().cast(pl.Float64, strict=False)
            frame = frame.rename({name: known_name}) if not cells.null_count() else frame
    return frame


def _strip_blanks(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Strip whitespace from column names and texts; a blank text becomes null."""
    frame = frame.rename({column: column.strip() for column in frame.columns})
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    text = pl.col(pl.String).str.strip_chars()
    return frame.with_columns(pl.when(text != "").then(text))


def _parse_numbers(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    cells = rows[column]
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise UserError(f"{name}: the column '{column}' holds {cells.dtype}. It must hold numbers.")
    values = cells.cast(pl.Float64, strict=False)
    wrong = values.is_null() & cells.is_not_null()
    if wrong.any() and cells.filter(wrong).cast(pl.String).str.contains(_DECIMAL_COMMA)[0]:
        _raise_for_first(rows, column, wrong, name, "is not a number: write a decimal point, not a comma")
    if wrong.any() and cells.filter(wrong).cast(pl.String).str.to_lowercase()[0] in _EMPTY_WORDS:
        _raise_for_first(rows, column, wrong, name, "is not a number: leave the cell empty")
    way_out = "; --map seed=seed numbers the names of runs in sorted order" * (column == "seed")
    _raise_for_first(rows, column, wrong, name, f"is not a number{way_out}")
    return values


def _parse_integers(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    values = _parse_numbers(rows, column, name)
    exact = values.is_finite() & (values == values.round()) & (values.abs() < _MAX_EXACT_INTEGER)
    _raise_for_first(rows, column, ~exact, name, "is not a whole number")
    return values.cast(pl.Int64)


def _parse_booleans(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    cells = rows[column].cast(pl.String).str.to_lowercase()
    values = cells.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    _raise_for_first(rows, column, values.is_null() & cells.is_not_null(), name, "is neither true nor false")
    return values


def _parse_shares(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    values = _parse_numbers(rows, column, name)
    wrong = ~((values > 0) & (values < 1))
    reason = "is not between 0 and 1. Give the share of the tokens; leave it empty on rows of the run itself."
    _raise_for_first(rows, column, wrong, name, reason)
    return values


_PARSERS: dict[str, Callable[[pl.DataFrame, str, str], pl.Series]] = {
    **dict.fromkeys(_TEXT_COLUMNS, lambda rows, column, _: rows[column].cast(pl.String)),
    **dict.fromkeys(_INTEGER_COLUMNS, _parse_integers),
    "decayed": _parse_booleans,
    "branch": _parse_shares,
}


def _raise_for_first(rows: pl.DataFrame, column: str, wrong: pl.Series, name: str, why: str) -> None:
    """Raise UserError for the first row in which `wrong` is true; null counts as false."""
    wrong_rows = rows.filter(wrong.fill_null(False))
    if wrong_rows.height:
        value = "" if wrong_rows[column][0] is None else f"={wrong_rows[column][0]}"
        raise UserError(f"{name}: row {wrong_rows['row'][0]}: {column}{value} {why}")


def _drop_repetitions(frame: pl.DataFrame, keep: str | None) -> pl.DataFrame:
    """Drop repeated evaluations; of those that differ keep the first or the last. Raises UserError if one
    step has two losses or two token counts and `keep` is None."""
    keys = [*RUN_COLUMNS, "branch", "domain", "step"]
    if frame.select(keys).hash_rows().n_unique() == frame.height:
        return frame  # the hashes take a tenth of the memory of a search for equal rows
    if keep is not None:
        is_scored = pl.col("loss").is_not_null()
        end = pl.int_range(pl.len()).reverse() if keep == "last" else pl.int_range(pl.len())
        is_kept = pl.when(is_scored).then(end.over(*keys, is_scored) == 0).otherwise(True)
        frame = frame.filter(is_kept)
    distinct = frame.unique([*keys, "loss", "tokens"], keep="first", maintain_order=True)
    scored = distinct.filter(pl.col("loss").is_not_null())
    duplicates = scored.filter(scored.select(keys).is_duplicated())
    if duplicates.height:
        scale, variant, seed, step = duplicates.select(*RUN_COLUMNS, "step").row(0)
        raise UserError(
            f"--curves: {scale}/{variant}/seed{seed} has several losses at step {step} "
            f"({duplicates.height} such rows in total). Keep one per step and domain; if a resume logged "
            "them twice, --keep last takes the later one (--keep first the earlier)."
        )
    return distinct


def _one_value_per_run(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a column with the one value of each run in all its rows. Raises UserError if a run has two."""
    values = frame.group_by(RUN_COLUMNS, maintain_order=True).agg(pl.col(column).drop_nulls().unique().sort())
    for scale, variant, seed, several in values.filter(pl.col(column).list.len() > 1).iter_rows():
        listing = ", ".join(f"{value:g}" for value in several[:3])
        raise UserError(
            f"--curves: {scale}/{variant}/seed{seed} has several values of {column} ({listing}). "
            "Give one per run."
        )
    first = pl.col(column).drop_nulls().first().over(RUN_COLUMNS)
    return frame.select(first).to_series()
