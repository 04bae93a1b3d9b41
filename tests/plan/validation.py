"""The analytic step time against published runs, as docs/planning.md shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.views.prediction_accuracy import published_runs_table
from harness.plan.validation import RowPrediction, accuracy_summary, cross_validate, predict_published_rows

ROWS = Path(__file__).parents[2].parent / "shared" / "validation" / "planner" / "published_runs.csv"
PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
MARK = "<!-- published -->"


def rows() -> list[RowPrediction]:
    """The published rows, if somebody put them beside the repository; skips the test, saying so, if not."""
    if not ROWS.is_file():
        pytest.skip("../shared/validation/planner is not here: the check on published runs was not made")
    return predict_published_rows(ROWS)


def table(seen: list[RowPrediction]) -> str:
    """Markdown: the summary, and one line a row."""
    content = published_runs_table(cross_validate(seen))
    lines = [f"| {' | '.join(cells)} |" for cells in (content.columns, *content.rows)]
    return "\n".join([accuracy_summary(seen), "", lines[0], "|---" * len(content.columns) + "|", *lines[1:]])


def page(seen: list[RowPrediction]) -> str:
    """docs/planning.md with its table made anew."""
    head = PAGE.read_text().split(MARK)[0] if PAGE.exists() else "# Planning\n\n"
    return f"{head}{MARK}\n{table(seen)}\n"
