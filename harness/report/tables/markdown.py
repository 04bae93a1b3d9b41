"""The verdict as Markdown, for a pull request."""

from __future__ import annotations

import re

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Ladder
from harness.core import number_format
from harness.report.tables import comparison as tables
from harness.report.tables import wording
from harness.report.tables.text_table import Table, split


def markdown(comparison: Comparison) -> str:
    """The verdict in words, the fairness table, each comparison by scale, flags and deviations."""
    fairness, same = split(tables.fairness(comparison))
    parts = [
        f"## {_text(comparison.experiment)}",
        *[f"**{_text(sentence)}**" for sentence in wording.sentences(comparison.verdict)],
        *_titled("Fairness", fairness),
        _text(same),
        *_titled("Learning rates that were tried (* the lowest loss)", tables.tuning(comparison)),
        *[part for ladder in comparison.ladder for part in _ladder(comparison, ladder)],
        *_titled(tables.ALONE, tables.alone(comparison)),
        *_titled(tables.samples_title(comparison), tables.samples(comparison)),
        *_titled("Forgetting: loss on domains that are not trained on", tables.forgetting(comparison)),
        *_titled("Gate", tables.gate(comparison)),
        *_titled("Diverged runs", tables.divergence(comparison)),
        *_titled("Deviations", tables.deviations(comparison)),
        *_titled("Flags", tables.flags(comparison)),
        *[_text(note) for note in comparison.notes],
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ladder(comparison: Comparison, ladder: Ladder) -> list[str]:
    known = " (positive control)" if ladder.positive_control else ""
    lines = [
        f"k = {wording.multiplier(ladder.k)} ({wording.pooled(ladder)}).",
        *wording.ladder_lines(ladder),
        f"{ladder.decision.value}: {ladder.reason}.",
    ]
    if ladder.settle:
        lines.append(f"What would settle it: {ladder.settle}.")
    title = f"{_text(ladder.variant)} against {_text(ladder.control)}{known}"
    return [
        f"### {title}",
        _table(tables.rungs(comparison, ladder)),
        "\n".join(f"- {_text(line)}" for line in lines),
    ]


def _titled(title: str, content: Table) -> list[str]:
    return [f"### {title}", _table(content)] if content else []


def _table(content: Table) -> str:
    sides = ["---" if content.worded(i) else "---:" for i in range(len(content.columns))]
    rows = [content.columns, *content.rows]
    head, *body = ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return "\n".join([head, f"| {' | '.join(sides)} |", *body])


def _text(text: str) -> str:
    """Text that Markdown and the HTML inside it leave alone; an `@name` calls nobody."""
    escaped = re.sub(r"([\\`*\[\]|#~!])", r"\\\1", number_format.plain_text(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"@(?=\w)", "@\u200b", re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped))
