"""Columns of a log under the names of a table of curves: by `--map`, by `--name`, or by their usual names."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from harness.compare.inputs.importers.imported_run import ImportedRun, NoEvaluationsError
from harness.compare.inputs.importers.run_names import NamePattern
from harness.compare.inputs.log_tables import NUMBER_COLUMNS, OPTIONAL, REQUIRED, SYNONYMS
from harness.core.errors import UserError, did_you_mean

COLUMNS = (*REQUIRED, *OPTIONAL)
_SCALED = re.compile(r"(?P<column>.+?)\s*\*\s*(?P<factor>\d+(?:\.\d*)?(?:[eE]\+?\d+)?)")
_DUPLICATE = re.compile(r"_duplicated_\d+$")
"""Ending that Polars gives the name of a column that comes again."""
_QUOTED = re.compile(r"'(.*)'|\"(.*)\"")
_FROM_FACTS = ("variant", "scale", "seed", "data_seed", "parameters", "unit")
"""Columns that a setting of a run of the same name gives."""
_CARRIED = ("step", "tokens", "learning_rate")
"""Columns of a tool's log of which an evaluation has the last value logged before it."""
USUAL_NAMES = {
    "loss": (
        "val_loss", "valid_loss", "validation_loss", "eval_loss", "loss_val", "loss_validation",
        "lm_loss_validation", "validation_metrics_loss", "eval_avg_loss",
    ),
    "step": (
        "trainer_global_step", "train_global_step", "global_step", "train_step", "iteration", "iter", "_step",
    ),
    "tokens": (
        "tokens_seen", "num_tokens", "total_tokens", "consumed_tokens", "train_tokens", "train_tokens_seen",
        "num_input_tokens_seen", "train_num_input_tokens_seen", "total_tokens_seen", "n_tokens_seen",
    ),
    "learning_rate": ("lr", "train_lr", "train_learning_rate", "optim_lr"),
}  # fmt: skip
"""Names for a column in logs, in order of preference, in lower case with `_` for every other sign."""
_ALL_USUAL_NAMES = {"step", "tokens", "loss", *(name for names in USUAL_NAMES.values() for name in names)}
_NUMBER_NAMES = {*USUAL_NAMES["loss"], *USUAL_NAMES["tokens"]}
_WAYS_OUT = {
    "loss": "Name the column with --map loss=COLUMN.",
    "step": "Name the column with --map step=COLUMN.",
    "tokens": "Name the column with --map tokens=COLUMN, or say how many a step takes: "
    "--map 'tokens=step*524288'.",
}


@dataclass(frozen=True)
class MappedLog:
    """Rows of a log under the names of a table of curves, as they were logged."""

    run: ImportedRun
    frame: pl.DataFrame
    sources: Mapping[str, str] = field(default_factory=dict)
    """Origin of each column: a column, the settings, the name or `--map`."""
    has_seed_names: bool = False
    """True if the seeds may be names of runs: all but a column `seed` of a table that nobody mapped."""
    num_carried: int = 0
    """Evaluations whose tokens are those logged last before them."""

    def without_rows(self) -> MappedLog:
        """Return what is said of the log, so that its rows can be freed."""
        run = dataclasses.replace(self.run, frame=pl.DataFrame())
        return dataclasses.replace(self, run=run, frame=pl.DataFrame())


def parse_column_map(pairs: Sequence[str]) -> dict[str, str]:
    """Return the pairs of `--map`. Raises UserError for a pair without `=` and for a column that is none."""
    column_map: dict[str, str] = {}
    for pair in pairs:
        column, sign, source = (part.strip() for part in pair.partition("="))
        if not (sign and source):
            raise UserError(f"--map {pair}: write COLUMN=NAME, such as loss=val_loss")
        if column not in COLUMNS:
            raise UserError(
                f"--map {pair}: '{column}' is no column of curves; {did_you_mean(column, COLUMNS)}"
            )
        if column in column_map:
            raise UserError(f"--map {pair}: {column} is mapped twice")
        column_map[column] = source
    return column_map


def is_known_column(name: str, column_map: Mapping[str, str]) -> bool:
    """Return True for a column that a log may have for these mappings."""
    return name in _source_columns(tuple(column_map.values())) or _simple(name) in _ALL_USUAL_NAMES


def is_number_column(name: str, column_map: Mapping[str, str]) -> bool:
    """Return True for a column that is read as numbers wherever it is read."""
    column_of = {source: column for column, source in column_map.items()}
    return column_of.get(name, name) in NUMBER_COLUMNS or _simple(name) in _NUMBER_NAMES


@functools.cache
def _source_columns(sources: tuple[str, ...]) -> frozenset[str]:
    column_names = (match["column"] if (match := _SCALED.fullmatch(name)) else name for name in sources)
    return frozenset({*COLUMNS, *SYNONYMS, *column_names})


def usual_column(column: str, names: Sequence[str], place: str) -> str | None:
    """Return the one of `names` that usually means this column; None if there is none. Raises UserError if
    two could be the loss."""
    simple = {name: _simple(name) for name in names}
    usual_names = (*((column,) * (column != "loss")), *USUAL_NAMES.get(column, ()))
    candidates = [name for usual in usual_names for name in names if simple[name] == usual]
    if column == "loss" and len(candidates) > 1:
        raise UserError(_rivals(place, candidates))
    return candidates[0] if candidates else None


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower())


def _rivals(place: str, names: Sequence[str]) -> str:
    listing = " and ".join(f"'{name}'" for name in names[:3])
    return f"{place}: the columns {listing} could be the loss. Choose with --map loss={names[0]}."


def map_columns(run: ImportedRun, column_map: Mapping[str, str], pattern: NamePattern | None) -> MappedLog:
    """Return the rows of a log under the names of a table. Raises UserError, with the option that mends it,
    for a column that is missing."""
    names = [_DUPLICATE.sub("", name.strip()) for name in run.frame.columns]
    for column in [column for column in (*COLUMNS, *SYNONYMS) if names.count(column) > 1]:
        raise UserError(
            f"{run.place}: there are two columns '{column}'. Keep one, or give each a name of its own and "
            f"choose with --map {column}=NAME."
        )
    if not (column_map or pattern) and run.is_table and {*REQUIRED} <= {*names}:
        _refuse_rivals(run)
        known_names = [name for name in run.frame.columns if name.strip() in {*COLUMNS, *SYNONYMS}]
        return MappedLog(
            run, run.frame.select(known_names), {name.strip(): name.strip() for name in known_names}
        )
    name_facts = pattern.match(run.name) if pattern else {}
    if run.frame.is_empty() and not run.is_table:
        raise NoEvaluationsError(f"{run.place}: the {run.kind} holds no numbers. Give the folder of a run.")
    raw_names = {name.strip(): name for name in reversed(run.frame.columns)}
    columns, sources = [], {}
    for column in COLUMNS:
        expression, source = _find(column, run, column_map, name_facts, raw_names)
        if expression is not None:
            columns.append(expression.alias(column))
            sources[column] = source
    frame = run.frame.select(pl.int_range(pl.len()).alias("_row"), *columns).drop("_row")
    frame, num_carried = (frame, 0) if run.is_table else _evaluations(frame)
    has_seed_names = not run.is_table or "seed" in {*column_map, *name_facts}
    return MappedLog(run, frame, sources, has_seed_names, num_carried)


def _find(
    column: str,
    run: ImportedRun,
    column_map: Mapping[str, str],
    name_facts: Mapping[str, str],
    raw_names: Mapping[str, str],
) -> tuple[pl.Expr | None, str]:
    """Return a column and its source, (None, "") for an optional one that is missing."""
    if column in column_map:
        return _mapped(column, column_map[column], run, raw_names), column_map[column]
    if column in name_facts:
        return pl.lit(name_facts[column]), "--name"
    if column in raw_names and (column != "loss" or run.has_named_loss):
        if column == "loss":
            _refuse_rivals(run)
        return pl.col(raw_names[column]), column
    if column in _FROM_FACTS and column in run.facts:
        return pl.lit(run.facts[column]), f"setting {column}"
    usual = usual_column(column, [*raw_names], run.place)
    if usual is None and column == "loss" and run.has_named_loss:
        usual = next((name for name in raw_names if name.lower() == column), None)
    if usual is not None:
        return pl.col(raw_names[usual]), usual
    if column in REQUIRED:
        is_unscored = column == "loss" and not run.is_table
        raise (NoEvaluationsError if is_unscored else UserError)(_missing(column, run, raw_names))
    return None, ""


def _refuse_rivals(run: ImportedRun) -> None:
    """Raise UserError for a table with a `loss`, perhaps of training, and a loss of validation."""
    rival = usual_column("loss", run.frame.columns, run.place)
    if rival is not None:
        raise UserError(_rivals(run.place, [rival, "loss"]))


def _missing(column: str, run: ImportedRun, names: Mapping[str, str]) -> str:
    value = 0 if column == "seed" else "NAME"
    way_out = _WAYS_OUT.get(
        column,
        f"Name it with --map {column}=COLUMN, read it from the path or the name of the run with --name "
        f"'...{{{column}}}...', or give all one value: --map \"{column}='{value}'\".",
    )
    training = [name for name in names if column == "loss" and name.lower().endswith("loss")]
    candidates = [name for name in (*names, *run.facts) if name not in COLUMNS]
    hint = did_you_mean(column, candidates) if candidates else "it has no other columns"
    if training and not run.has_named_loss:
        hint = f"{', '.join(training[:3])} may be of training"
    num_unknown = sum(_simple(name) not in _ALL_USUAL_NAMES and name not in COLUMNS for name in names)
    if run.is_table and num_unknown > 1 and not ({"loss", "variant"} & {*names}):
        way_out += " If each column is a run, say what their names hold: --name '{variant}_{seed}'."
    return f"{run.place}: there is no column '{column}'; {hint.rstrip('.')}. {way_out}".replace("?.", "?")


def _mapped(column: str, source: str, run: ImportedRun, raw_names: Mapping[str, str]) -> pl.Expr:
    """Return the column of one pair of `--map`: a quotation value, a column, a setting, or a column times a
    number."""
    if quotation := _QUOTED.fullmatch(source):
        return pl.lit(quotation[1] or quotation[2] or "")
    if source in raw_names:
        return pl.col(raw_names[source])
    if source in run.facts:
        return pl.lit(run.facts[source])
    product = _SCALED.fullmatch(source)
    factor_of = product["column"] if product else ""
    if factor_of in COLUMNS and factor_of not in raw_names:
        factor_of = usual_column(factor_of, [*raw_names], run.place)
    if product and factor_of and factor_of in raw_names:
        return pl.col(raw_names[factor_of]).cast(pl.Float64, strict=False) * float(product["factor"])
    name = product["column"] if product else source
    hint = did_you_mean(name, [*raw_names, *run.facts])
    is_unscored = column == "loss" and not run.is_table
    raise (NoEvaluationsError if is_unscored else UserError)(
        f"{run.place}: --map {column}={source}: there is no column or setting '{name}'; {hint}"
    )


def _evaluations(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the rows with a loss, each with the last step, tokens and learning rate before it, and the
    number of rows whose tokens were carried so. A log without any loss keeps its rows: the run exists."""
    loss = pl.col("loss")
    if frame.schema["loss"] == pl.String:
        loss = loss.str.strip_chars().replace("", None)
    columns = [name for name in _CARRIED if name in frame.columns]
    num_carried = frame.filter(loss.is_not_null() & pl.col("tokens").is_null()).height
    frame = frame.with_columns(pl.col(columns).forward_fill())
    scored = frame.filter(loss.is_not_null())
    return (scored if scored.height else frame), num_carried
