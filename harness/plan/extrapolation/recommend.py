"""What may be bet on at a scale that was not trained, in words that claim no more than the design carries.

Nothing is decided by the line: a bet follows from the verdict over the scales that were trained and from the
sign at the largest of them. The line can only forbid it, and is drawn one decade beyond the data, no further.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.results.verdict_types import Decision
from harness.compare.stats.estimates import Direction
from harness.compare.verdict.flags import blocking
from harness.core.span import Span
from harness.plan.extrapolation.evidence import Standing

DECADES = 1.0
"""Of compute beyond the largest scale trained to which the line may be drawn (as
`compare.stats.scale_trend.project`)."""


@dataclass(frozen=True)
class Case:
    """One treatment at one planned scale."""

    scale: str
    standing: Standing
    log_k: Span | None
    decades: float
    """Beyond the largest scale trained."""
    sibling: bool
    """The plan itself has the pair there."""

    @property
    def bet(self) -> str | None:
        """The variant to bet on; None: not settled."""
        return None if self._doubts else self.standing.leads

    @property
    def sentence(self) -> str:
        ladder = self.standing.ladder
        if self._doubts:
            doubts = "; ".join(self._doubts)
            said = f"the evidence does not settle {ladder.variant} against {ladder.control}: {doubts}"
        else:
            said = (
                f"bet on {self.bet}, which is no verdict: {ladder.decision.value} over the scales trained,"
                f" {self._sign}, and the projected interval leaves k = 1 out"
            )
        return f"{self.scale}: {'; '.join([said, *self._beside])}."

    @property
    def _doubts(self) -> list[str]:
        """Each by itself enough not to bet."""
        ladder = self.standing.ladder
        if ladder.decision is Decision.INVALID:
            return [f"its verdict is INVALID ({', '.join(blocking(ladder.flags))}): nothing is read from it"]
        found = [self._of_verdict(), self._of_line(), self._of_gate(), self._of_distance()]
        return [doubt for doubt in found if doubt]

    def _of_verdict(self) -> str:
        ladder, largest = self.standing.ladder, self.standing.largest.scale
        better = {Decision.B_BETTER: ladder.variant, Decision.A_BETTER: ladder.control}.get(ladder.decision)
        if better is None:
            return f"its verdict over the scales trained is {ladder.decision.value}"
        return "" if better == self.standing.leads else f"{largest}, the largest trained, disagrees"

    def _of_line(self) -> str:
        if self.log_k is None:
            return "no line can be drawn through its multipliers"
        if self.log_k.low <= 0 <= self.log_k.high:
            return "the projected interval holds k = 1"
        ahead = self.standing.ladder.variant if self.log_k.low > 0 else self.standing.ladder.control
        return "" if ahead == self.standing.leads else f"the line has turned to {ahead}"

    def _of_gate(self) -> str:
        """The control needs no promotion."""
        gate = self.standing.gate
        if gate is None or gate.promote or self.standing.leads != gate.variant:
            return ""
        return f"its gate does not promote {gate.variant} ({gate.reason})"

    def _of_distance(self) -> str:
        if self.decades <= DECADES:
            return ""
        return (
            f"it lies {self.decades - DECADES:.1f} decades of compute beyond where the line may be drawn, and"
            " its number there decides nothing"
        )

    @property
    def _beside(self) -> list[str]:
        """What else a reader should know before betting."""
        trend = self.standing.ladder.trend
        told = []
        if self._doubts and self.standing.leads:
            told.append(f"what is left is the sign at the largest scale trained: {self._sign}")
        if self.bet and trend and trend.direction is Direction.SHRINKS:
            told.append("but its lead shrinks with scale")
        if self.sibling:
            told.append("the plan has this pair itself, which is there to tell")
        return told

    @property
    def _sign(self) -> str:
        largest = self.standing.largest
        low, high = largest.delta.low, largest.delta.high
        clear = low is not None and high is not None and not low <= 0 <= high
        return f"{self.standing.leads} ahead at {largest.scale}{'' if clear else ', not clear of zero'}"
