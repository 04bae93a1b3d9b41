"""Verdict of a comparison as an object that shows itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.compare import Comparison
from harness.compare.results.verdict_types import Ladder
from harness.core.number_format import plain_text
from harness.report.tables import wording


@dataclass(frozen=True, repr=False)
class OpenedVerdict:
    """Decision on each treatment, its reason, and what would settle it."""

    comparison: Comparison

    @property
    def decisions(self) -> dict[str, str]:
        """Decision by treatment at the largest scale: B_BETTER (the treatment), A_BETTER (the control),
        EQUIVALENT, INCONCLUSIVE or INVALID."""
        return {ladder.variant: ladder.decision.value for ladder in self.comparison.ladder}

    @property
    def bets(self) -> dict[str, str | None]:
        """Bet by treatment for the larger run of the rule: BET_B, BET_A, EITHER or OPEN; None without one."""
        return {
            ladder.variant: ladder.bet.decision.value if ladder.bet else None
            for ladder in self.comparison.ladder
        }

    @property
    def settle(self) -> dict[str, str]:
        """Sentence by treatment with what would settle the decision; '' where it is settled."""
        return {ladder.variant: plain_text(ladder.settle) for ladder in self.comparison.ladder}

    def __repr__(self) -> str:
        blocks = ("\n".join((_title(ladder), *_indented(ladder))) for ladder in self.comparison.ladder)
        return "\n".join([*blocks, wording.k_meaning(self.comparison)]).rstrip("\n")

    def _repr_html_(self) -> str:
        from harness.report.page.notebook import html_list, html_paragraphs

        blocks = []
        for ladder in self.comparison.ladder:
            blocks += [html_paragraphs([_title(ladder)], bold=True), html_list(_lines(ladder))]
        return "".join(blocks) + html_paragraphs(filter(None, [wording.k_meaning(self.comparison)]))


def _title(ladder: Ladder) -> str:
    suffix = " (positive control: known to be worse)" if ladder.positive_control else ""
    return plain_text(f"{ladder.variant} against {ladder.control}{suffix}")


def _lines(ladder: Ladder) -> Iterator[str]:
    yield wording.decision_line(ladder)
    if ladder.settle:
        yield f"What would settle it: {plain_text(ladder.settle)}."
    yield from wording.bet_lines(ladder)
    yield from wording.ladder_lines(ladder)


def _indented(ladder: Ladder) -> Iterator[str]:
    yield from (f"  {line}" for line in _lines(ladder))
