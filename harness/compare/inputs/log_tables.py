"""Logs of any trainer as one table: frames, CSV or Parquet files, every cell checked before it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from harness.core.errors import UserError, nearest

REQUIRED = ("variant", "scale", "seed", "step", "tokens", "loss")
OPTIONAL = ("domain", "flops", "parameters", "decayed", "branch", "data_seed")
RUN = ("scale", "variant", "seed")
_NAMES = ("variant", "scale", "domain")
_WHOLE = ("seed", "step", "tokens", "data_seed")
_AMOUNTS = ("step", "tokens", "flops", "parameters")
_EXACT = 2.0**53
"""From here on a float no longer tells neighbouring whole numbers apart."""
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_SCHEMA = {
    **dict.fromkeys(_NAMES, pl.String),
    **dict.fromkeys(_WHOLE, pl.Int64),
    **dict.fromkeys(("loss", "flops", "parameters", "branch"), pl.Float64),
    "decayed": pl.Boolean,
}


def read_tables(tables: Sequence[pl.DataFrame | Path | str]) -> pl.DataFrame:
    """All tables as one: the columns of REQUIRED and OPTIONAL (empty where no table has them), typed.

    Columns may stand in any order, others are ignored, blank lines and exact repetitions are dropped;
    whole numbers may be written as floats, and losses may be nan or inf. An empty loss is no
    evaluation: its row only says that the run exists. Raises UserError, naming file, row and column,
    for a cell that cannot be read and for two losses of one step.
    """
    frames = [_typed(*_named(table)) for table in tables]
    if not any(frame.height for frame in frames):
        raise UserError(
            "--curves: no rows to compare; give CSV or Parquet files with the columns " + ", ".join(REQUIRED)
        )
    return _once(pl.concat([pl.DataFrame(schema=_SCHEMA), *frames], how="diagonal"))


def _named(table: pl.DataFrame | Path | str) -> tuple[pl.DataFrame, str]:
    """A table with what to call it in a message."""
    return (table, "table") if isinstance(table, pl.DataFrame) else (_file(Path(table)), str(table))


def _file(path: Path) -> pl.DataFrame:
    """A Parquet file by its first bytes, anything else as CSV, all cells still text."""
    kind = "CSV"
    try:
        with path.open("rb") as file:
            kind = "Parquet" if file.read(4) == b"PAR1" else kind
        return pl.read_parquet(path) if kind == "Parquet" else pl.read_csv(path, infer_schema=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: is not a {kind} table ({str(error).splitlines()[0]})") from error


def _typed(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The known columns in their types."""
    frame = _cleaned(frame, name)
    for column in [column for column in REQUIRED if column not in frame.columns]:
        raise UserError(f"{name}: there is no column '{column}'; {nearest(column, frame.columns)}")
    frame = frame.select(column for column in (*REQUIRED, *OPTIONAL) if column in frame.columns)
    rows = frame.with_row_index("row", 1).filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    parsed = [_READERS.get(column, _numbers)(rows, column, name) for column in frame.columns]
    typed = pl.DataFrame(parsed, schema={column: _SCHEMA[column] for column in frame.columns})
    _check_amounts(rows, typed, name)
    for column in RUN:
        _refuse(rows, column, typed[column].is_null(), name, "is empty")
    for column in ("step", "tokens"):
        _refuse(rows, column, typed[column].is_null() & typed["loss"].is_not_null(), name, "is empty")
    return typed


def _cleaned(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Without blanks around names and texts; a blank text is an empty cell."""
    names = [column.strip() for column in frame.columns]
    for column in [column for column in REQUIRED if names.count(column) > 1]:
        raise UserError(f"{name}: there are two columns '{column}'; keep one")
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    text = pl.col(pl.String).str.strip_chars()
    return frame.with_columns(pl.when(text != "").then(text))


def _texts(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    return rows[column].cast(pl.String)


def _numbers(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    cells = rows[column]
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise UserError(f"{name}: the column '{column}' holds {cells.dtype}, which are no numbers")
    values = cells.cast(pl.Float64, strict=False)
    _refuse(rows, column, values.is_null() & cells.is_not_null(), name, "is of the wrong kind: no number")
    return values


def _whole(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    values = _numbers(rows, column, name)
    exact = values.is_finite() & (values == values.round()) & (values.abs() < _EXACT)
    _refuse(rows, column, ~exact, name, "is not a whole number")
    return values.cast(pl.Int64)


def _truths(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    cells = rows[column].cast(pl.String).str.to_lowercase()
    values = cells.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
    _refuse(rows, column, values.is_null() & cells.is_not_null(), name, "is neither true nor false")
    return values


def _shares(rows: pl.DataFrame, column: str, name: str) -> pl.Series:
    values = _numbers(rows, column, name)
    wrong = ~((values > 0) & (values < 1))
    _refuse(rows, column, wrong, name, "is no share of the tokens (leave it empty on rows of the run itself)")
    return values


_READERS: dict[str, Callable[[pl.DataFrame, str, str], pl.Series]] = {
    **dict.fromkeys(_NAMES, _texts),
    **dict.fromkeys(_WHOLE, _whole),
    "decayed": _truths,
    "branch": _shares,
}


def _check_amounts(rows: pl.DataFrame, typed: pl.DataFrame, name: str) -> None:
    for column in [column for column in _AMOUNTS if column in typed.columns]:
        values = typed[column].cast(pl.Float64)
        wrong = ~(values.is_finite() & (values >= 0))
        _refuse(rows, column, wrong, name, "is no amount: finite, and not below zero")


def _refuse(rows: pl.DataFrame, column: str, wrong: pl.Series, name: str, why: str) -> None:
    """Raise for the first row that is wrong; an empty cell (null) is not."""
    found = rows.filter(wrong.fill_null(False))
    if found.height:
        value = "" if found[column][0] is None else f"={found[column][0]}"
        raise UserError(f"{name}: row {found['row'][0]}: {column}{value} {why}")


def _once(frame: pl.DataFrame) -> pl.DataFrame:
    """Each evaluation once. Raises UserError where one step has two losses, or two numbers of tokens."""
    keys = [*RUN, "branch", "domain", "step"]
    distinct = frame.unique([*keys, "loss", "tokens"], keep="first", maintain_order=True)
    scored = distinct.filter(pl.col("loss").is_not_null())
    twice = scored.filter(scored.select(keys).is_duplicated())
    if twice.height:
        scale, variant, seed, step = twice.select(*RUN, "step").row(0)
        raise UserError(
            f"--curves: {scale}/{variant}/seed{seed} has several losses at step {step} "
            f"({twice.height} such rows in all); keep one a step and domain"
        )
    return distinct
