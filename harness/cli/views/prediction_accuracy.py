"""Accuracy of predicted step times by machine and evidence, and how plans correct them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from harness.core.errors import UserError
from harness.core.number_format import format_number, plain_text
from harness.launcher.cost.correction import MIN_LAUNCHES, Accuracy, accuracy_by_evidence
from harness.launcher.cost.prediction_log import Prediction, PredictionLog
from harness.report.tables.terminal import NARROW, print_line, print_table
from harness.report.tables.text_table import Table, drop_columns, make_table

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
    return accuracy_by_evidence(log.predictions)


def print_accuracy(log: PredictionLog, accuracies: Sequence[Accuracy], console: Console) -> None:
    """Print `accuracies`, the corrections that plans make, and the newest runs of the log."""
    print_table(console, "Seconds of a step, predicted and measured", _table(accuracies))
    for accuracy in accuracies:
        print_line(console, plain_text(_correction_text(accuracy)))
    newest = log.predictions[: -LISTED - 1 : -1]
    content = _newest_table(newest)
    content = content if console.width >= NARROW else drop_columns(content, ("ended", "devices", "raw"))
    print_table(console, f"The newest {len(newest)} of {len(log.predictions)} runs", content)
    if log.skipped:
        print_line(console, f"{log.skipped} lines are damaged or of another version, and are left out.")


def _table(accuracies: Sequence[Accuracy]) -> Table:
    columns = ("machine", "evidence", "runs", "launches", "off by", "worst", "inside [95 %]", "took/raw")
    return make_table(columns, map(_row, accuracies), left=2)


def _row(accuracy: Accuracy) -> tuple[str, ...]:
    return (
        accuracy.machine,
        accuracy.evidence,
        str(accuracy.runs),
        str(accuracy.launches),
        f"{accuracy.median:.0%}",
        f"{accuracy.worst:.0%}",
        f"{accuracy.inside:.0%} [{accuracy.inside_low:.0%}, {accuracy.inside_high:.0%}]",
        format_number(accuracy.factor),
    )


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
    return make_table(columns, map(_newest_row, predictions))


def _newest_row(prediction: Prediction) -> tuple[str, ...]:
    predicted, low, high = map(format_number, (prediction.predicted, prediction.low, prediction.high))
    return (
        f"{prediction.experiment}/{prediction.run}",
        prediction.date[:16].replace("T", " "),
        str(prediction.devices),
        f"{predicted} [{low}, {high}]",
        format_number(prediction.raw),
        format_number(prediction.measured),
        f"{prediction.predicted / prediction.measured - 1:+.0%}",
    )
