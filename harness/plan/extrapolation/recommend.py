"""Recommendation at a scale that was not trained, in words that claim no more than the design carries.

The line decides nothing: a bet follows from the verdict over the trained scales and from the sign at the
largest of them. The line can only forbid it, and is drawn one decade beyond the data, no further.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.results.verdict_types import Decision
from harness.compare.stats.estimates import Direction
from harness.compare.verdict.flags import blocking_flags
from harness.core.interval import Interval
from harness.plan.extrapolation.evidence import TreatmentEvidence

MAX_DECADES_BEYOND = 1.0
"""Decades of compute beyond the largest trained scale that the line may reach (as `scale_trend.project`)."""


@dataclass(frozen=True)
class Recommendation:
    """Treatment at one planned scale."""

    scale: str
    treatment: TreatmentEvidence
    log_k: Interval | None
    decades: float
    """Decades of compute beyond the largest trained scale."""
    sibling: bool
    """True if the plan itself trains the pair at this scale."""

    @property
    def bet(self) -> str | None:
        """Return the variant to bet on; None: not settled."""
        return None if self._objections else self.treatment.leader

    @property
    def sentence(self) -> str:
        """Return the recommendation and its reasons in one sentence."""
        ladder = self.treatment.ladder
        if self._objections:
            verdict = f"the evidence does not settle {ladder.variant} against {ladder.control}"
            conclusion = f"{verdict}: {'; '.join(self._objections)}"
        else:
            conclusion = (
                f"bet on {self.bet}, which is no verdict: {ladder.decision.value} over the scales trained,"
                f" {self._sign_text}, and the projected interval leaves k = 1 out"
            )
        return f"{self.scale}: {'; '.join([conclusion, *self._remarks])}."

    @property
    def _objections(self) -> list[str]:
        """Return the reasons not to bet; each is enough by itself."""
        ladder = self.treatment.ladder
        if ladder.decision is Decision.INVALID:
            flags = ", ".join(blocking_flags(ladder.flags))
            return [f"its verdict is INVALID ({flags}): nothing is read from it"]
        checks = self._verdict_objection, self._line_objection, self._gate_objection, self._distance_objection
        return [objection for check in checks if (objection := check())]

    def _verdict_objection(self) -> str:
        ladder, largest = self.treatment.ladder, self.treatment.largest.scale
        better = {Decision.B_BETTER: ladder.variant, Decision.A_BETTER: ladder.control}.get(ladder.decision)
        if better is None:
            return f"its verdict over the scales trained is {ladder.decision.value}"
        return "" if better == self.treatment.leader else f"{largest}, the largest trained, disagrees"

    def _line_objection(self) -> str:
        if self.log_k is None:
            return "no line can be drawn through its multipliers"
        if self.log_k.low <= 0 <= self.log_k.high:
            return "the projected interval holds k = 1"
        ahead = self.treatment.ladder.variant if self.log_k.low > 0 else self.treatment.ladder.control
        return "" if ahead == self.treatment.leader else f"the line has turned to {ahead}"

    def _gate_objection(self) -> str:
        gate = self.treatment.gate
        if gate is None or gate.promote or self.treatment.leader != gate.variant:
            return ""
        return f"its gate does not promote {gate.variant} ({gate.reason})"

    def _distance_objection(self) -> str:
        if self.decades <= MAX_DECADES_BEYOND:
            return ""
        beyond = f"{self.decades - MAX_DECADES_BEYOND:.1f} decades of compute beyond"
        return f"it lies {beyond} where the line may be drawn, and its number there decides nothing"

    @property
    def _remarks(self) -> list[str]:
        """Return what else a reader should know before betting."""
        trend = self.treatment.ladder.trend
        remarks = []
        if self._objections and self.treatment.leader:
            remarks.append(f"what is left is the sign at the largest scale trained: {self._sign_text}")
        if self.bet and trend and trend.direction is Direction.SHRINKS:
            remarks.append("but its lead shrinks with scale")
        if self.sibling:
            remarks.append("the plan has this pair itself, which is there to tell")
        return remarks

    @property
    def _sign_text(self) -> str:
        largest = self.treatment.largest
        low, high = largest.delta.low, largest.delta.high
        clear = low is not None and high is not None and not low <= 0 <= high
        return f"{self.treatment.leader} ahead at {largest.scale}{'' if clear else ', not clear of zero'}"
