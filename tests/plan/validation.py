"""The analytic step time against published runs, each predicted by a fit to the other sources alone."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.plan.calibration import Calibration, Seen, fit, leave_one_source_out, look

ROWS = Path(__file__).parents[2].parent / "shared" / "validation" / "planner" / "published_runs.csv"
PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
MARK = "<!-- published -->"


@dataclass(frozen=True)
class Judged:
    """One row, as a fit without its source says."""

    seen: Seen
    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        return abs(self.value / self.seen.published - 1)

    @property
    def inside(self) -> bool:
        return self.low <= self.seen.published <= self.high

    @property
    def width(self) -> float:
        """Half the interval over the prediction."""
        return (self.high - self.low) / 2 / self.value


def rows() -> list[Seen]:
    """The published rows, if somebody put them beside the repository; skips the test, saying so, if not."""
    if not ROWS.is_file():
        pytest.skip("../shared/validation/planner is not here: the check on published runs was not made")
    with ROWS.open() as file:
        return look(list(csv.DictReader(file)))


def judged(seen: list[Seen]) -> list[Judged]:
    return [_judge(one, known) for one, known in leave_one_source_out(seen)]


def _judge(one: Seen, known: Calibration) -> Judged:
    value, wide = one.predicted * known.factor, math.exp(known.interval(one.doubts))
    return Judged(one, value, value / wide, value * wide)


def table(rows: list[Judged], known: Calibration) -> str:
    """Markdown: the summary, and one line a row."""
    lines = [
        _summary(rows, known),
        "",
        "| run | source | chips | published s | predicted s | error | inside |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        said = row.seen.row
        lines.append(
            f"| {said.id} | {said.source} | {said.chips:,} {said.chip.name} | {row.seen.published:.2f}"
            f" | {row.value:.2f} [{row.low:.2f}, {row.high:.2f}] | {row.value / row.seen.published - 1:+.0%}"
            f" | {'yes' if row.inside else 'no'} |"
        )
    return "\n".join(lines)


def _summary(rows: list[Judged], known: Calibration) -> str:
    errors = [row.error for row in rows]
    raw = np.mean([abs(math.exp(-row.seen.log_ratio) - 1) for row in rows])
    inside, width = np.mean([row.inside for row in rows]), np.median([row.width for row in rows])
    return (
        f"{len(rows)} rows of {len({row.seen.row.source for row in rows})} sources, each predicted without"
        f" its source: mean error {np.mean(errors):.1%}, nine rows of ten {np.quantile(errors, 0.9):.0%} or"
        f" less, {inside:.0%} inside the interval, whose median half width is {width:.0%}."
        f" Uncalibrated: {raw:.1%}. Fitted to all: factor {known.factor:.4f}, spread {known.spread:.4f}"
        " (standard deviation in ln)."
    )


def page(rows: list[Seen]) -> str:
    """docs/planning.md with its table made anew."""
    head = PAGE.read_text().split(MARK)[0] if PAGE.exists() else "# Planning\n\n"
    return f"{head}{MARK}\n{table(judged(rows), fit(rows))}\n"
