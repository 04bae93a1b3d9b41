"""Table of published runs and their predictions."""

from __future__ import annotations

from collections.abc import Sequence

from harness.plan.validation import HeldOutPrediction
from harness.report.tables.text_table import Table, make_table


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
