"""How good predictions of a step were, in the terminal: by machine and evidence, and what is made of that."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from harness.core import number_format
from harness.core.errors import UserError
from harness.launcher.cost.correction import FEWEST, Accuracy, judge
from harness.launcher.cost.prediction_log import Kept, Prediction
from harness.report.tables.terminal import NARROW, say, section
from harness.report.tables.text_table import Table, table, without

LISTED = 10
"""Runs, the newest first."""


def judged(kept: Kept) -> list[Accuracy]:
    """Raises UserError where nothing was kept."""
    if not kept.predictions:
        left_out = f" ({kept.skipped} damaged or of another version)" if kept.skipped else ""
        raise UserError(
            f"harness plan --calibrate: no finished run is on record{left_out}; train a sweep, and each of"
            " its runs is held against what was predicted of it"
        )
    return judge(kept.predictions)


def print_accuracy(kept: Kept, found: Sequence[Accuracy], console: Console) -> None:
    """`found`: what `judged` says of them."""
    section(console, "Seconds of a step, predicted and measured", _table(found))
    for each in found:
        say(console, number_format.plain_text(_used(each)))
    newest = kept.predictions[: -LISTED - 1 : -1]
    content = _newest(newest)
    content = content if console.width >= NARROW else without(content, ("ended", "devices", "raw"))
    section(console, f"The newest {len(newest)} of {len(kept.predictions)} runs", content)
    if kept.skipped:
        say(console, f"{kept.skipped} lines are damaged or of another version, and are left out.")


def _table(found: Sequence[Accuracy]) -> Table:
    columns = ("machine", "rests on", "runs", "launches", "off by", "worst", "inside [95 %]", "took/raw")
    return table(columns, map(_row, found), left=2)


def _row(each: Accuracy) -> tuple[str, ...]:
    return (
        each.machine,
        each.evidence,
        str(each.runs),
        str(each.launches),
        f"{each.median:.0%}",
        f"{each.worst:.0%}",
        f"{each.inside:.0%} [{each.inside_low:.0%}, {each.inside_high:.0%}]",
        number_format.number(each.factor),
    )


def _used(each: Accuracy) -> str:
    """What a later plan does."""
    what = f"{each.machine}, {each.evidence}"
    if each.now is None:
        return (
            f"{what}: a plan takes predictions as they are; to correct them takes {FEWEST} launches,"
            f" {each.launches} {'is' if each.launches == 1 else 'are'} there."
        )
    return (
        f"{what}: a plan multiplies predictions by {number_format.number(each.now.factor)}, and widens their "
        f"interval to a factor {number_format.number(math.exp(each.now.spread))} either way where it is "
        f"narrower (the newest {each.now.launches} launches)."
    )


def _newest(predictions: Sequence[Prediction]) -> Table:
    columns = ("run", "ended", "devices", "predicted s [low, high]", "raw", "measured", "off by")
    return table(columns, map(_newest_row, predictions))


def _newest_row(each: Prediction) -> tuple[str, ...]:
    predicted, low, high = map(number_format.number, (each.predicted, each.low, each.high))
    return (
        f"{each.experiment}/{each.run}",
        each.date[:16].replace("T", " "),
        str(each.devices),
        f"{predicted} [{low}, {high}]",
        number_format.number(each.raw),
        number_format.number(each.measured),
        f"{each.predicted / each.measured - 1:+.0%}",
    )
