"""The table of published runs beside their predictions."""

from __future__ import annotations

from collections.abc import Sequence

from harness.plan.validation.cross_validation import HeldOutPrediction
from harness.report.tables.text_table import Table, make_table


def published_runs_table(rows: Sequence[HeldOutPrediction]) -> Table:
    columns = ("run", "source", "chips", "published s", "predicted s [low, high]", "error", "inside")
    return make_table(columns, map(_cells, rows), left=3)


def _cells(row: HeldOutPrediction) -> tuple[str, ...]:
    return (
        row.run,
        row.source,
        f"{row.chips:,} {row.chip}",
        f"{row.published:.2f}",
        f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]",
        f"{row.value / row.published - 1:+.0%}",
        "yes" if row.inside else "no",
    )
