"""Verdict of a comparison as HTML: its sentences, a card per treatment, and the table of a ladder."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Ladder
from harness.compare.verdict.verdict_text import decision_phrase, place_phrase
from harness.report.charts import theme
from harness.report.page.html import escape_text, paragraph, table
from harness.report.tables import comparison_tables as tables
from harness.report.tables import wording
from harness.report.tables.text_table import explain_constant_columns


def verdict_header(comparison: Comparison, variants: Sequence[str]) -> str:
    """Return the verdict as HTML, with a card per treatment in its colour and the notes.

    `variants` are in the order of the colours.
    """
    hypothesis = comparison.rule.hypothesis
    sentences = wording.verdict_lines(comparison)
    cards = "".join(_card(ladder, comparison, variants) for ladder in comparison.ladder)
    verdict = " ".join(f"<span>{escape_text(sentence)}</span>" for sentence in sentences)
    return (
        f'<h1 id="verdict">{verdict}</h1>'
        + paragraph(wording.k_meaning(comparison), "note")
        + (paragraph(f"Hypothesis: {hypothesis}", "hypothesis") if hypothesis else "")
        + f'<div class="cards">{cards}</div>'
        + "".join(paragraph(note, "note") for note in (*wording.power_lines(comparison), *comparison.notes))
    )


def _card(ladder: Ladder, comparison: Comparison, variants: Sequence[str]) -> str:
    place = variants.index(ladder.variant) if ladder.variant in variants else 0
    colour = f"variant-{place % len(theme.LIGHT['variants'])}"
    suffix = ", positive control" if ladder.positive_control else ""
    phrase = decision_phrase(ladder.decision, treatment=ladder.variant, control=ladder.control)
    phrase += place_phrase(ladder)
    lines = [f"{ladder.reason[:1].upper()}{ladder.reason[1:]}."]
    lines += [f"What would settle it: {ladder.settle}."] if ladder.settle else []
    lines += [*wording.bet_lines(ladder), *wording.ladder_lines(ladder)]
    return (
        f'<article class="card {colour}">'
        f'<p class="soft">{escape_text(ladder.variant)} against {escape_text(ladder.control)}{suffix}</p>'
        f'<p class="decision">{escape_text(phrase)} <small>{ladder.decision.value}</small></p>'
        f'<p class="numbers">{escape_text(wording.largest_scale_line(comparison, ladder))}</p>'
        f"<ul>{''.join(f'<li>{escape_text(line)}</li>' for line in lines)}</ul></article>"
    )


def scale_table(comparison: Comparison, ladder: Ladder) -> list[str]:
    """Return a heading, the table of the scales as HTML, and a line with the columns that are constant."""
    title = f"{escape_text(ladder.variant)} against {escape_text(ladder.control)}, by scale"
    rungs, constant = explain_constant_columns(tables.rungs(comparison, ladder))
    return [f"<h3>{title}</h3>", table(rungs), paragraph(constant, "caption")]
