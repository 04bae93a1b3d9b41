"""Tables in other forms: a column a run, as W&B exports charts, and a row a value, as Neptune exports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import polars as pl

from harness.compare.inputs.importers.imported_run import ImportedRun, flat_facts, frame_of_rows, rows_by_step
from harness.core.errors import UserError

NEPTUNE_COLUMNS = {"run_id", "attribute_path", "attribute_type", "step", "float_value"}
_WANDB_SIGN = " - "
_RANGE = ("__MIN", "__MAX")
"""Ends of the columns with the range over which W&B averaged a point."""
_VALUES = ("int_value", "float_value", "string_value", "bool_value")


def split_chart_export(table: ImportedRun, is_run: Callable[[str], bool]) -> list[ImportedRun]:
    """Return a log for each run of a table with a column a run; the table alone if it is none.

    W&B names the columns of a chart `RUN - METRIC`, after one of steps. Of other tables those columns are
    runs whose names `is_run` accepts, and their values are losses.
    """
    columns = [name for name in table.frame.columns if not name.endswith(_RANGE)]
    cells = [name for name in columns if _WANDB_SIGN in name]
    shared_columns = [name for name in columns if name not in cells]
    if cells and len(shared_columns) <= 1:
        by_run: dict[str, dict[str, str]] = defaultdict(dict)
        for name in cells:
            run, _, metric = name.rpartition(_WANDB_SIGN)
            by_run[run][metric] = name
        kind = "W&B chart export"
    else:
        runs = [name for name in columns if is_run(name)]
        by_run = {name: {"loss": name} for name in runs}
        shared_columns = [name for name in columns if name not in by_run]
        kind = "wide table"
    if len(by_run) < 2:
        return [table]
    return [
        ImportedRun(
            table.place, f"{table.name}/{run}", kind, _rows_of_run(table.frame, shared_columns, metrics),
            {"run_name": run}, has_named_loss=kind == "wide table",
        )
        for run, metrics in by_run.items()
    ]  # fmt: skip


def _rows_of_run(frame: pl.DataFrame, shared_columns: list[str], metrics: dict[str, str]) -> pl.DataFrame:
    """Return the columns of one run under the names of its metrics, without rows in which it has no value."""
    columns = [pl.col(name) for name in shared_columns if name not in metrics]
    rows = frame.select(*columns, *(pl.col(name).alias(metric) for metric, name in metrics.items()))
    is_blank = [
        pl.col(metric).is_null() | (pl.col(metric).cast(pl.String).str.strip_chars() == "")
        for metric in metrics
    ]
    return rows.filter(~pl.all_horizontal(is_blank))


def split_neptune_export(table: ImportedRun) -> list[ImportedRun]:
    """Return a log for each run of a Parquet file of Neptune's exporter; parameters become facts.

    Rows are (run, attribute, type, step, value), attribute after attribute; the float series are joined in
    order of time. Raises UserError if the file has no float series.
    """
    series = pl.col("attribute_type") == "float_series"
    clock = [name for name in ("timestamp",) if name in table.frame.columns]
    points = table.frame.filter(series).select("run_id", "attribute_path", "step", "float_value", *clock)
    points = points.with_columns(pl.col("step").cast(pl.Float64)).sort([*clock, "step"], maintain_order=True)
    if points.is_empty():
        raise UserError(f"{table.place}: no row is of attribute_type 'float_series'. Export metrics too.")
    values = [name for name in _VALUES if name in table.frame.columns]
    settings = table.frame.filter(~series).select("run_id", "attribute_path", *values)
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    for run, path, *cells in settings.iter_rows():
        value = next((cell for cell in cells if cell is not None), None)
        facts[run] |= flat_facts({path: value, path.rpartition("/")[2]: value})
    runs = []
    for (run,), rows in points.partition_by("run_id", as_dict=True, maintain_order=True).items():
        events = rows.select("step", "attribute_path", "float_value").iter_rows()
        name = facts[run].get("sys/name", run)
        runs.append(
            ImportedRun(
                table.place, f"{table.name}/{name}", "Neptune export", frame_of_rows(rows_by_step(events)),
                facts[run] | {"run_id": run, "run_name": name},
            )
        )  # fmt: skip
    return sorted(runs, key=lambda run: run.name)
