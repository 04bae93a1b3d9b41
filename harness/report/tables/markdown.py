"""The verdict as Markdown for a pull request."""

from __future__ import annotations

import re

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Ladder
from harness.core.number_format import plain_text
from harness.report.tables import comparison_tables as tables
from harness.report.tables import wording
from harness.report.tables.text_table import Table, explain_constant_columns


def markdown(comparison: Comparison) -> str:
    """Return the verdict, the fairness table, each comparison by scale, deviations and flags."""
    fairness, constant = explain_constant_columns(tables.fairness(comparison))
    parts = [
        f"## {_escape(comparison.experiment)}",
        *[f"**{_escape(line)}**" for line in wording.verdict_lines(comparison)],
        _escape(wording.k_meaning(comparison)),
        *_titled_table("Fairness", fairness),
        _escape(constant),
        *_titled_table("Learning rates that were tried (* the lowest loss)", tables.tuning(comparison)),
        *[part for ladder in comparison.ladder for part in _ladder(comparison, ladder)],
        *_titled_table(tables.UNPAIRED_TITLE, tables.unpaired_runs(comparison)),
        *_titled_table(tables.OWN_METRICS_TITLE, tables.own_metrics(comparison)),
        *_titled_table(tables.samples_title(comparison), tables.samples(comparison)),
        *_titled_table("Forgetting: loss on domains that are not trained on", tables.forgetting(comparison)),
        *_titled_table("Gate", tables.gate(comparison)),
        *_titled_table("Diverged runs", tables.divergence(comparison)),
        *_titled_table("Deviations", tables.deviations(comparison)),
        *_titled_table("Flags", tables.flags(comparison)),
        *[_escape(line) for line in (*wording.power_lines(comparison), *comparison.notes)],
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ladder(comparison: Comparison, ladder: Ladder) -> list[str]:
    suffix = " (positive control)" if ladder.positive_control else ""
    lines = [
        wording.decision_line(ladder),
        wording.largest_scale_line(comparison, ladder),
        *([f"What would settle it: {ladder.settle}."] if ladder.settle else []),
        *wording.bet_lines(ladder),
        *wording.ladder_lines(ladder),
    ]
    title = f"{_escape(ladder.variant)} against {_escape(ladder.control)}{suffix}"
    return [
        f"### {title}",
        _table(tables.rungs(comparison, ladder)),
        "\n".join(f"- {_escape(line)}" for line in lines),
    ]


def _titled_table(title: str, content: Table) -> list[str]:
    return [f"### {title}", _table(content)] if content else []


def _table(content: Table) -> str:
    sides = ["---" if content.is_text_column(i) else "---:" for i in range(len(content.columns))]
    rows = [content.columns, *content.rows]
    head, *body = ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows]
    return "\n".join([head, f"| {' | '.join(sides)} |", *body])


def _escape(text: str) -> str:
    """Escape text for Markdown and the HTML inside it. An `@name` does not notify anybody."""
    escaped = re.sub(r"([\\`*\[\]|#~!])", r"\\\1", plain_text(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"@(?=\w)", "@\u200b", re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped))
