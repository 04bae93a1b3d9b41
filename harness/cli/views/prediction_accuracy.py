"""Accuracy of predicted step times by machine and evidence, how plans correct them, and published runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.core.number_format import format_interval, format_number, plain_text
from harness.launcher.cost import prediction_log
from harness.launcher.cost.prediction_log import MIN_LAUNCHES, Accuracy, Prediction, PredictionLog
from harness.plan.validation import HeldOutPrediction
from harness.report.tables.terminal import print_line, print_table
from harness.report.tables.text_table import Table, make_table

LISTED = 10
"""Number of runs in the table, the newest first."""


def measure_accuracy(log: PredictionLog) -> list[Accuracy]:
    """Return the accuracy by machine and evidence. Raises UserError if no run is recorded."""
    if not log.predictions:
        left_out = f" ({log.skipped} damaged or of another version)" if log.skipped else ""
        raise UserError(
            f"harness plan --accuracy: no finished run is on record{left_out}. Train a sweep; its runs"
            " then record their predicted and measured step times."
        )
    return prediction_log.accuracy_by_evidence(log.predictions)


def print_accuracy(log: PredictionLog, accuracies: Sequence[Accuracy], console: Console) -> None:
    """Print `accuracies`, the corrections that plans make, and the newest runs of the log."""
    print_table(console, "Seconds of a step, predicted and measured", _table(accuracies))
    for accuracy in accuracies:
        print_line(console, plain_text(_correction_text(accuracy)))
    newest = log.predictions[: -LISTED - 1 : -1]
    title = f"The newest {len(newest)} of {len(log.predictions)} runs"
    print_table(console, title, _newest_table(newest))
    if log.skipped:
        print_line(console, f"{log.skipped} lines are damaged or of another version, and are left out.")


def _table(accuracies: Sequence[Accuracy]) -> Table:
    columns = ("machine", "evidence", "runs", "launches", "off by", "worst", "inside [95 %]", "took/raw")
    rows = (
        (group.machine, group.evidence, str(group.runs), str(group.launches), f"{group.median:.0%}",
         f"{group.worst:.0%}", f"{group.inside:.0%} [{group.inside_low:.0%}, {group.inside_high:.0%}]",
         format_number(group.factor))
        for group in accuracies
    )  # fmt: skip
    return make_table(columns, rows, left=2)


def _correction_text(accuracy: Accuracy) -> str:
    """Say how later plans correct predictions of this machine and evidence."""
    group = f"{accuracy.machine}, {accuracy.evidence}"
    if accuracy.now is None:
        return (
            f"{group}: a plan does not correct predictions; a correction needs {MIN_LAUNCHES} launches, "
            f"and there {'is' if accuracy.launches == 1 else 'are'} {accuracy.launches}."
        )
    return (
        f"{group}: a plan multiplies predictions by {format_number(accuracy.now.factor)}, and widens their "
        f"interval to a factor {format_number(math.exp(accuracy.now.spread))} either way where it is "
        f"narrower (the newest {accuracy.now.launches} launches)."
    )


def _newest_table(predictions: Sequence[Prediction]) -> Table:
    columns = ("run", "ended", "devices", "predicted s [low, high]", "raw", "measured", "off by")
    rows = (
        (f"{run.experiment}/{run.run}", run.date[:16].replace("T", " "), str(run.devices),
         format_interval(Interval(run.predicted, run.low, run.high)), format_number(run.raw),
         format_number(run.measured), f"{run.predicted / run.measured - 1:+.0%}")
        for run in predictions
    )  # fmt: skip
    return make_table(columns, rows)


def published_runs_table(rows: Sequence[HeldOutPrediction]) -> Table:
    """Build the table, one row per run: seconds of a step, relative error, and whether the interval held."""
    columns = ("run", "source", "chips", "published s", "predicted s [low, high]", "error", "inside")
    cells = (
        (row.run, row.source, f"{row.chips:,} {row.chip}", f"{row.published:.2f}",
         f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]", f"{row.value / row.published - 1:+.0%}",
         "yes" if row.inside else "no")
        for row in rows
    )  # fmt: skip
    return make_table(columns, cells, left=3)
