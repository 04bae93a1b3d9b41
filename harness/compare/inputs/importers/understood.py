"""Understanding of logs: the table of all runs, and three lines about it for the reader."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.compare.inputs.importers.column_map import MappedLog
from harness.compare.inputs.log_tables import REQUIRED
from harness.core.errors import printable

MAX_NAMES = 6
"""Number of names of a list that are printed."""
_WHOLE_NUMBER = r"^\s*[-+]?\d{1,15}(\.0*)?\s*$"


@dataclass(frozen=True)
class UnderstoodLogs:
    """Rows of all logs with the columns of `log_tables`, and how they were understood."""

    frame: pl.DataFrame
    lines: tuple[str, str, str]
    """Files, runs and columns, a line each."""
    notes: tuple[str, ...] = ()
    """Sentences about what was done to the rows, for the verdict."""


def number_seeds(logs: Sequence[MappedLog]) -> tuple[list[MappedLog], list[str]]:
    """Give run names that stand for seeds numbers in sorted order, and say so. The column `seed` of a plain
    table stays as it is unless it was mapped."""
    sources = [log for log in logs if log.has_seed_names]
    texts = {str(seed) for log in sources for seed in log.frame["seed"].unique().drop_nulls().to_list()}
    if not texts or pl.Series([*texts]).str.contains(_WHOLE_NUMBER).all():
        return [*logs], []
    numbers = {text: number for number, text in enumerate(sorted(texts))}
    numbered_logs = [
        dataclasses.replace(
            log,
            frame=log.frame.with_columns(
                pl.col("seed").cast(pl.String).replace_strict(numbers, default=None, return_dtype=pl.Int64)
            ),
        )
        if log.has_seed_names
        else log
        for log in logs
    ]
    listing = _listing([f"{number} is {text}" for text, number in numbers.items()])
    return numbered_logs, [f"the seeds are names of runs, numbered in sorted order: {listing}"]


def describe(
    frame: pl.DataFrame, logs: Sequence[MappedLog], notes: Sequence[str], joined: Sequence[str]
) -> UnderstoodLogs:
    """Describe logs that were read. joined: names of runs whose rows come from several logs."""
    num_carried = sum(log.num_carried for log in logs)
    num_skipped = sum({log.run.place: log.run.num_skipped for log in logs}.values())
    cut_places = [*dict.fromkeys(log.run.place for log in logs if log.run.is_cut)]
    sentences = [
        *notes,
        *(
            [f"files that end within a record, by a kill or by damage: {_listing(cut_places)}"]
            * bool(cut_places)
        ),
        *([f"--skip-broken leaves out {num_skipped} lines that are no JSON object"] * bool(num_skipped)),
        *(
            [f"{num_carried} evaluations have the tokens that were logged last before them"]
            * bool(num_carried)
        ),
        *([f"runs joined from several logs: {_listing(joined)}"] * bool(joined)),
    ]
    files, runs, columns = (printable(line) for line in (_files(logs), _runs(frame), _columns(logs)))
    return UnderstoodLogs(frame, (files, runs, columns), tuple(map(printable, sentences)))


def _files(logs: Sequence[MappedLog]) -> str:
    kinds = Counter(log.run.kind for log in logs)
    places = {log.run.place for log in logs}
    counts = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in kinds.items())
    if len(places) == 1:
        return f"Read: {counts} in {places.pop()}"
    folder = os.path.commonpath([Path(place).absolute() for place in places])
    return f"Read: {counts} in {len(places)} places below {folder}"


def _runs(frame: pl.DataFrame) -> str:
    count = frame.select("scale", "variant", "seed").unique().height
    parts, grid = [], 1
    for column in ("variant", "scale", "seed"):
        values = frame[column].unique(maintain_order=True).to_list()
        values = sorted(values) if column == "seed" else values
        parts.append(f"{len(values)} {column}{'' if len(values) == 1 else 's'} ({_listing(values)})")
        grid *= len(values)
    factors = " x ".join(parts)
    runs = f"{count} = {factors}" if count == grid else f"{count}, of the {grid} that {factors} would make"
    return f"Runs: {runs}; {frame['loss'].count()} evaluations"


def _columns(logs: Sequence[MappedLog]) -> str:
    parts = []
    for column in (*REQUIRED, "learning_rate"):
        sources = dict.fromkeys(log.sources[column] for log in logs if column in log.sources)
        if sources:
            other_names = [source for source in sources if source != column]
            parts.append(f"{column} from {_listing(list(sources))}" if other_names else column)
    return f"Columns: {', '.join(parts)}"


def _listing(names: Sequence[object]) -> str:
    shown_names = ", ".join(map(str, names[:MAX_NAMES]))
    return shown_names if len(names) <= MAX_NAMES else f"{shown_names} and {len(names) - MAX_NAMES} more"
