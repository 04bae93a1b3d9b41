"""Reader for the logs of any trainer: frames and files as one table with checked cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from harness.compare.inputs.log_cells import (
    CellForms,
    CellParser,
    parse_booleans,
    parse_integers,
    parse_numbers,
    parse_shares,
    parse_texts,
    raise_for_first,
)
from harness.compare.inputs.lr_grids import GRID_RATE, mark_grids
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
NUMBER_COLUMNS = frozenset(
    ("step", "tokens", "loss", "flops", "parameters", "seconds", "learning_rate", "lr")
)
"""Names of columns that may be read as float64 at once. A seed may be a larger number, or a name."""
_LOG = "log"
"""Column that numbers the tables, of which a table cannot have one by itself: only known columns are read."""
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


PLAIN_FORMS = CellForms()


def read_tables(
    tables: Iterable[LogTable], keep: str | None = None, forms: CellForms = PLAIN_FORMS
) -> pl.DataFrame:
    """Read all tables as one, with the typed columns of REQUIRED and OPTIONAL (null if absent).

    Columns may be in any order; others are ignored. Blank lines and exact repetitions are dropped. Whole
    numbers may be written as floats, and losses may be nan or inf. A row with an empty loss only declares
    that the run exists. Of several losses of one step, as after a resume, `keep` says which counts, "first"
    or "last". Raises UserError, naming file, row and column, for a cell that cannot be read and, without
    `keep`, for two losses of one step.
    """
    frames = [_parse_columns(table.frame, table.name, forms) for table in tables]
    if not any(frame.height for frame in frames):
        raise UserError(
            "--curves: no rows to compare. Give CSV, JSON lines or Parquet files with the columns "
            f"{', '.join(REQUIRED)}."
        )
    numbered_frames = (frame.with_columns(pl.lit(number).alias(_LOG)) for number, frame in enumerate(frames))
    frame = pl.concat([pl.DataFrame(schema={**_SCHEMA, _LOG: pl.Int32}), *numbered_frames], how="diagonal")
    frame = _drop_repetitions(mark_grids(frame, _LOG).drop(_LOG), keep)
    return frame.with_columns(_one_value_per_run(frame, column) for column in ("parameters", "data_seed"))


def _parse_columns(frame: pl.DataFrame, name: str, forms: CellForms) -> pl.DataFrame:
    """Convert the known columns to their types."""
    frame = _rename_synonyms(frame.rename({column: column.strip() for column in frame.columns}), forms)
    frame = frame.select(column for column in (*REQUIRED, *OPTIONAL) if column in frame.columns)
    rows = _filled_rows(frame, forms)
    parsed = [_PARSERS.get(column, parse_numbers)(rows, column, name, forms) for column in frame.columns]
    typed = pl.DataFrame(parsed, schema={column: _SCHEMA[column] for column in frame.columns})
    for column in [column for column in _NON_NEGATIVE_COLUMNS if column in typed.columns]:
        values = typed[column].cast(pl.Float64)
        wrong = ~(values.is_finite() & (values >= 0))
        way_out = f"must be finite and not negative; --filter '{column}>=0' leaves out other rows"
        raise_for_first(rows, column, wrong, name, way_out)
    for column in RUN_COLUMNS:
        raise_for_first(rows, column, typed[column].is_null(), name, "is empty")
    for column in ("step", "tokens"):
        lacks_value = typed[column].is_null() & typed["loss"].is_not_null()
        raise_for_first(rows, column, lacks_value, name, "is empty")
    return typed


def _filled_rows(frame: pl.DataFrame, forms: CellForms) -> pl.DataFrame:
    """Return numbered rows with stripped texts, without blank rows."""
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    frame = frame.with_columns(forms.without_empty_words(pl.col(pl.String)))
    return frame.with_row_index("row", 1).filter(~pl.all_horizontal(pl.exclude("row").is_null()))


def _rename_synonyms(frame: pl.DataFrame, forms: CellForms) -> pl.DataFrame:
    """Give columns of numbers under another name the name that is known here."""
    for name, known_name in SYNONYMS.items():
        if name in frame.columns and known_name not in frame.columns:
            cells = frame.select(name)
            if cells.schema[name] == pl.String:
                cells = cells.select(forms.without_empty_words(pl.col(name)).alias(name))
            numbers = forms.plain_numbers(cells[name]).drop_nulls().cast(pl.Float64, strict=False)
            frame = frame.rename({name: known_name}) if not numbers.null_count() else frame
    return frame


_PARSERS: dict[str, CellParser] = {
    **dict.fromkeys(_TEXT_COLUMNS, parse_texts),
    **dict.fromkeys(_INTEGER_COLUMNS, parse_integers),
    "decayed": parse_booleans,
    "branch": parse_shares,
}


def _drop_repetitions(frame: pl.DataFrame, keep: str | None) -> pl.DataFrame:
    """Drop repeated evaluations; of those that differ keep the first or the last. Raises UserError if one
    step has two losses or two token counts and `keep` is None."""
    keys = [*RUN_COLUMNS, GRID_RATE, "branch", "domain", "step"]
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
            "them twice, --keep last takes the later one (--keep first the earlier); if another column tells "
            "them apart, --filter COLUMN=VALUE takes some; if they are runs at several learning rates, "
            "--map learning_rate=COLUMN tells them."
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
