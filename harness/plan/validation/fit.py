"""The calibration that fits published runs, and its errors on sources that were left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.plan.calibration.published_run import Row, read_row
from harness.plan.calibration.uncertainty import REMEMBERED, Calibration, doubts_of
from harness.plan.validation.published_speed import observed_seconds


@dataclass(frozen=True)
class Seen:
    """One published row beside what the closed form says of it, before any calibration."""

    row: Row
    published: float
    """Seconds a step."""
    predicted: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.published / self.predicted)

    @property
    def doubts(self) -> tuple[str, ...]:
        return doubts_of(self.row)


def fit(seen: Sequence[Seen]) -> Calibration:
    """The weighted mean of ln(published / predicted), and its spread about that. A group of n rows, those of
    one source on one chip, counts like sqrt(n) groups of one, since its rows err alike."""
    each = np.array([one.log_ratio for one in seen])
    names = [(one.row.source, one.row.chip.name) for one in seen]
    weights = np.array([names.count(name) ** -0.5 for name in names])
    weights *= np.array([REMEMBERED if one.row.doubtful else 1.0 for one in seen])
    mean = float(np.average(each, weights=weights))
    spread = math.sqrt(float(np.average((each - mean) ** 2, weights=weights)))
    return Calibration(math.exp(mean), spread, len({*names}), len(names))


def look(rows: Sequence[Mapping[str, Any]]) -> list[Seen]:
    """Every row that tells a step time, beside the uncalibrated closed form. Raises UserError."""
    from harness.plan.predict import closed_form

    read = [(row, read_row(row)) for row in rows]
    told = [(one, observed_seconds(row, one.model)) for row, one in read]
    return [Seen(one, seconds, closed_form(one)[0].seconds) for one, seconds in told if seconds is not None]


def leave_one_source_out(seen: Sequence[Seen]) -> list[tuple[Seen, Calibration]]:
    """Each row with the calibration of all other sources' rows."""
    names = {one.row.source for one in seen}
    without = {name: fit([one for one in seen if one.row.source != name]) for name in names}
    return [(one, without[one.row.source]) for one in seen]
