"""Logs as people have them: what a path is, its reader, and one table of all runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from harness.compare.inputs.csv_files import is_headed
from harness.compare.inputs.importers.column_map import (
    COLUMNS,
    MappedLog,
    is_known_column,
    is_number_column,
    map_columns,
    parse_column_map,
    usual_column,
)
from harness.compare.inputs.importers.imported_run import (
    ImportedRun,
    NoEvaluationsError,
    run_without_evaluations,
)
from harness.compare.inputs.importers.mlflow_stores import META, is_run_folder, read_run_folder
from harness.compare.inputs.importers.row_filters import RowFilter, filter_runs, parse_filters
from harness.compare.inputs.importers.run_names import NamePattern
from harness.compare.inputs.importers.sqlite_files import MAGIC as SQLITE_MAGIC
from harness.compare.inputs.importers.sqlite_files import read_sqlite_file
from harness.compare.inputs.importers.tensorboard_events import read_event_folder
from harness.compare.inputs.importers.text_logs import custom_pattern, read_text_log
from harness.compare.inputs.importers.trainer_state import FILE_NAME, read_trainer_states
from harness.compare.inputs.importers.understood import UnderstoodLogs, describe, number_seeds
from harness.compare.inputs.importers.wandb_runs import MAGIC as WANDB_MAGIC
from harness.compare.inputs.importers.wandb_runs import read_wandb_run
from harness.compare.inputs.importers.wide_tables import (
    NEPTUNE_COLUMNS,
    split_chart_export,
    split_neptune_export,
)
from harness.compare.inputs.log_cells import CellForms
from harness.compare.inputs.log_files import (
    FileReading,
    check_format,
    compression_of,
    expanded_content,
    first_bytes,
    read_log_file,
)
from harness.compare.inputs.log_tables import RUN_COLUMNS, LogTable, read_tables
from harness.core.errors import UserError
from harness.core.files.folder_walk import list_files

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TEXT_SUFFIXES = (".log", ".txt", ".out")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_JSON_START = re.compile(rb'\{|\[\s*[\[{"\]]')


@dataclass(frozen=True)
class LogReading:
    """Way of reading logs: the options of `harness compare` beside --curves."""

    column_map: Mapping[str, str] = field(default_factory=dict)
    """Column of a log (or setting of its run, or quoted value) for each column of curves."""
    name: str | None = None
    """Pattern with {variant}, {scale}, {seed}, which the end of a path or the name of a run matches."""
    keep: str | None = None
    """Evaluation of several of one step that counts, `first` or `last`; None: they are refused."""
    lines: str | None = None
    """Regular expression of an evaluation in a text log; None: those of known trainers are tried."""

    filters: Sequence[RowFilter] = ()
    """Comparisons that rows must pass."""
    forms: CellForms = field(default_factory=CellForms)
    """Forms of numbers and empty cells."""
    skip_broken: bool = False
    """True if lines of JSON that cannot be read are left out."""

    @classmethod
    def from_options(
        cls,
        pairs: Sequence[str],
        name: str | None,
        keep: str | None,
        lines: str | None,
        *,
        filters: Sequence[str] = (),
        decimal: str | None = None,
        empty: Sequence[str] = (),
        skip_broken: bool = False,
    ) -> LogReading:
        """Check the options. Raises UserError for one that cannot be read."""
        if lines is not None:
            custom_pattern(lines)
        if name is not None:
            NamePattern(name, COLUMNS)
        forms = CellForms(decimal, frozenset(word.strip().lower() for word in empty))
        return cls(parse_column_map(pairs), name, keep, lines, parse_filters(filters), forms, skip_broken)

    def is_known(self, column: str) -> bool:
        """Return True for a column of a table that these options can use."""
        is_filtered = any(column == row_filter.column for row_filter in self.filters)
        return is_filtered or is_known_column(column, self.column_map)


def read_logs(logs: Sequence[pl.DataFrame | Path | str], reading: LogReading) -> UnderstoodLogs:
    """Read tables, files and folders of logs as one table with the columns of `log_tables`.

    A path is a table (CSV, JSON lines, Parquet), a text log, a TensorBoard, W&B or MLflow folder, a SQLite
    file of MLflow or trackio, a trainer_state.json, or a folder of such. Raises UserError, with the option
    that mends it, for a log that cannot be read.
    """
    pattern = NamePattern(reading.name, COLUMNS) if reading.name else None
    runs = (
        run
        for log in logs
        for run in (
            [ImportedRun("table", "table", "table", log, has_named_loss=True, is_table=True)]
            if isinstance(log, pl.DataFrame)
            else _read_path(Path(log), reading, pattern)
        )
    )
    notes: list[str] = []
    if reading.filters:
        runs, notes = filter_runs(runs, reading.filters)
    logs_to_read, seed_notes = number_seeds(_map_all(runs, reading.column_map, pattern))
    joined = _joined_runs(logs_to_read) if reading.keep else []
    summaries = [log.without_rows() for log in logs_to_read]
    frame = read_tables(_taken_tables(logs_to_read), reading.keep, reading.forms)
    return describe(frame, summaries, notes + seed_notes, joined)


def _map_all(
    runs: Iterable[ImportedRun], column_map: Mapping[str, str], pattern: NamePattern | None
) -> list[MappedLog]:
    """Map the columns of every log. Runs of a tool that ended before their first evaluation come last. Raises
    UserError if no log has any."""
    logs: list[MappedLog] = []
    unscored: list[tuple[ImportedRun, NoEvaluationsError]] = []
    for run in runs:
        try:
            logs.append(map_columns(run, column_map, pattern))
        except NoEvaluationsError as error:
            unscored.append((run_without_evaluations(run), error))
    if unscored and not logs:
        raise unscored[0][1]
    facts_map = {column: name for column, name in column_map.items() if column in RUN_COLUMNS}
    return logs + [map_columns(run, facts_map, pattern) for run, _ in unscored]


def _taken_tables(logs: list[MappedLog]) -> Iterator[LogTable]:
    """Yield the tables of logs and empty the list, so that rows of text are freed once they are parsed."""
    while logs:
        log = logs.pop(0)
        yield LogTable(log.run.place, log.frame)


def _joined_runs(logs: Sequence[MappedLog]) -> list[str]:
    """Return the runs whose rows come from several logs."""
    counts = Counter(key for log in logs for key in log.frame.select(RUN_COLUMNS).unique().iter_rows())
    return [f"{scale}/{variant}/seed{seed}" for (scale, variant, seed), count in counts.items() if count > 1]


def _read_path(path: Path, reading: LogReading, pattern: NamePattern | None) -> list[ImportedRun]:
    try:
        return _read_folder(path, reading, pattern) if path.is_dir() else _read_file(path, reading, pattern)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def _read_folder(folder: Path, reading: LogReading, pattern: NamePattern | None) -> list[ImportedRun]:
    """Read the runs below a folder. Raises UserError for none, and for logs of several tools, which may hold
    the same runs."""
    files = list_files(folder).files
    by_tool = {
        "TensorBoard event files": [file for file in files if _is_event_file(file)],
        "W&B runs": [file for file in files if file.suffix == ".wandb"],
        f"Hugging Face {FILE_NAME}": [file for file in files if file.name == FILE_NAME],
        "MLflow runs": [file for file in files if file.name == META and is_run_folder(file.parent)],
        "SQLite files": [file for file in files if file.suffix in SQLITE_SUFFIXES],
    }
    tools = [tool for tool, tool_files in by_tool.items() if tool_files]
    if len(tools) > 1:
        raise UserError(
            f"{folder}: holds {' and '.join(tools)}, which may log the same runs. Give the files or the "
            "folder of one."
        )
    if not tools:
        plain = [file for file in files if file.suffix in (*TABLE_SUFFIXES, *TEXT_SUFFIXES)]
        if not plain:
            raise UserError(
                f"{folder}: cannot be read as logs: no table, text log, or folder of TensorBoard, W&B or "
                "MLflow is in it. Give the files."
            )
        return [run for file in plain for run in _read_file(file, reading, pattern)]
    tool_files = by_tool[tools[0]]
    if tool_files is by_tool["TensorBoard event files"]:
        folders = dict.fromkeys(file.parent for file in tool_files)
        return [
            read_event_folder(run, [file for file in tool_files if file.parent == run]) for run in folders
        ]
    if tool_files is by_tool["MLflow runs"]:
        runs = [run for file in tool_files if (run := read_run_folder(file.parent))]
        return sorted(runs, key=lambda run: run.facts["run_name"])
    if tool_files[0].name == FILE_NAME:
        return read_trainer_states(tool_files)
    return [run for file in tool_files for run in _read_file(file, reading, pattern)]


def _is_event_file(file: Path) -> bool:
    return ".tfevents." in file.name


def _read_file(file: Path, reading: LogReading, pattern: NamePattern | None) -> list[ImportedRun]:
    """Read a file by its first bytes, an event file and a trainer_state.json by their names."""
    if _is_event_file(file):
        return [read_event_folder(file.parent, [file])]
    if compression_of(file):
        return _read_compressed(file, reading, pattern)
    start = first_bytes(file)
    if start.startswith(SQLITE_MAGIC):
        return read_sqlite_file(file)
    if start.startswith(WANDB_MAGIC):
        return [read_wandb_run(file)]
    check_format(start, str(file))
    if file.name.endswith(FILE_NAME):
        return read_trainer_states([file])
    if not _is_table(file, start, reading):
        return [read_text_log(file, reading.lines)]
    return _read_table(file, reading, pattern)


def _read_compressed(file: Path, reading: LogReading, pattern: NamePattern | None) -> list[ImportedRun]:
    """Read a compressed table or text log. Raises UserError for another compressed file."""
    content = expanded_content(file)
    check_format(content[:4096], str(file))
    if content.startswith((SQLITE_MAGIC, WANDB_MAGIC, b"PAR1")):
        raise UserError(f"{file}: is a compressed store. Unpack it, and give the file in it.")
    if not _is_table(file.with_suffix(""), content[:4096], reading):
        return [read_text_log(file, reading.lines, content)]
    return _read_table(file, reading, pattern)


def _is_table(file: Path, start: bytes, reading: LogReading) -> bool:
    """Return True for a table, by suffix, first bytes, or two known columns in the first line; False for the
    text log of a run."""
    content = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not content or file.suffix in TABLE_SUFFIXES or content.startswith(b"PAR1"):
        return True
    if _JSON_START.match(content):
        return True
    return is_headed(start, reading.is_known)


def _read_table(file: Path, reading: LogReading, pattern: NamePattern | None) -> list[ImportedRun]:
    """Read a table; one with a column a run or a row a value is split into runs."""
    numbers = (lambda name: is_number_column(name, reading.column_map)) if reading.forms.are_plain else None
    log_file = read_log_file(
        file, FileReading(reading.is_known, numbers or (lambda name: False), reading.skip_broken)
    )
    frame = log_file.frame
    table = ImportedRun(
        str(file), file.as_posix(), "table", frame, {"run_name": file.stem}, True, log_file.is_cut,
        log_file.num_skipped, is_table=True,
    )  # fmt: skip
    names = [name.strip() for name in frame.columns]
    if {*names} >= NEPTUNE_COLUMNS:
        return split_neptune_export(table)
    has_loss = "loss" in names or "loss" in reading.column_map or usual_column("loss", names, str(file))
    if not has_loss:
        return split_chart_export(
            table, lambda name: not reading.is_known(name) and bool(pattern and pattern.find(name))
        )
    return [table]
