"""How good predictions of a step were, in the terminal: by machine and evidence, and what is made of that."""

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
"""Runs, the newest first."""


def measure_accuracy(kept: PredictionLog) -> list[Accuracy]:
    """Raises UserError where nothing was kept."""
    if not kept.predictions:
        left_out = f" ({kept.skipped} damaged or of another version)" if kept.skipped else ""
        raise UserError(
            f"harness plan --accuracy: no finished run is on record{left_out}; train a sweep, and each of"
            " its runs is held against what was predicted of it"
        )
    return accuracy_by_evidence(kept.predictions)


def print_accuracy(kept: PredictionLog, found: Sequence[Accuracy], console: Console) -> None:
    """`found`: what `judged` says of them."""
    print_table(console, "Seconds of a step, predicted and measured", _table(found))
    for accuracy in found:
        print_line(console, plain_text(_correction_text(accuracy)))
    newest = kept.predictions[: -LISTED - 1 : -1]
    content = _newest_table(newest)
    content = content if console.width >= NARROW else drop_columns(content, ("ended", "devices", "raw"))
    print_table(console, f"The newest {len(newest)} of {len(kept.predictions)} runs", content)
    if kept.skipped:
        print_line(console, f"{kept.skipped} lines are damaged or of another version, and are left out.")


def _table(found: Sequence[Accuracy]) -> Table:
    columns = ("machine", "rests on", "runs", "launches", "off by", "worst", "inside [95 %]", "took/raw")
    return make_table(columns, map(_row, found), left=2)


def _row(each: Accuracy) -> tuple[str, ...]:
    return (
        each.machine,
        each.evidence,
        str(each.runs),
        str(each.launches),
        f"{each.median:.0%}",
        f"{each.worst:.0%}",
        f"{each.inside:.0%} [{each.inside_low:.0%}, {each.inside_high:.0%}]",
        format_number(each.factor),
    )


def _correction_text(each: Accuracy) -> str:
    """What a later plan does."""
    group = f"{each.machine}, {each.evidence}"
    if each.now is None:
        return (
            f"{group}: a plan takes predictions as they are; to correct them takes {MIN_LAUNCHES} launches,"
            f" {each.launches} {'is' if each.launches == 1 else 'are'} there."
        )
    return (
        f"{group}: a plan multiplies predictions by {format_number(each.now.factor)}, and widens their "
        f"interval to a factor {format_number(math.exp(each.now.spread))} either way where it is "
        f"narrower (the newest {each.now.launches} launches)."
    )


def _newest_table(predictions: Sequence[Prediction]) -> Table:
    columns = ("run", "ended", "devices", "predicted s [low, high]", "raw", "measured", "off by")
    return make_table(columns, map(_newest_row, predictions))


def _newest_row(each: Prediction) -> tuple[str, ...]:
    predicted, low, high = map(format_number, (each.predicted, each.low, each.high))
    return (
        f"{each.experiment}/{each.run}",
        each.date[:16].replace("T", " "),
        str(each.devices),
        f"{predicted} [{low}, {high}]",
        format_number(each.raw),
        format_number(each.measured),
        f"{each.predicted / each.measured - 1:+.0%}",
    )
