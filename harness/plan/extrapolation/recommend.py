"""Recommendation at a scale that was not trained, in words that claim no more than the design carries.

It follows the bet on a run of this size: ln k at the largest trained scale, with the drift that lies between
the two. The line through the scales can only forbid it, and so can the promotion gate.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.results.verdict_types import BetVerdict, Decision
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.estimates import Direction
from harness.compare.verdict.flags import EXPLANATIONS, blocking_flags
from harness.plan.extrapolation.evidence import TreatmentEvidence

LIMIT = (
    "a drift that is much larger than declared and hidden by the noise of the seeds is bet on wrongly (in "
    "simulation up to 37 % of ladders of two scales and two seeds, 15 % of three and three, none at the "
    "noise of large models)"
)
"""Limit of a bet whose ladder hardly shows its drift. Simulated: a line of -.08 per e-fold, at twelve times
the noise of large models."""


@dataclass(frozen=True)
class Recommendation:
    """Treatment at one planned scale."""

    scale: str
    treatment: TreatmentEvidence
    verdict: BetVerdict | None
    """Bet on a run of this size; None: none can be made."""
    decades: float
    """Decades of compute beyond the largest trained scale."""
    sibling: bool
    """True if the plan itself trains the pair at this scale."""

    @property
    def bet(self) -> str | None:
        """Return the variant to bet on; None: not settled, or either will do."""
        return None if self._objection else self._favourite

    @property
    def sentence(self) -> str:
        """Return the recommendation and its reasons in one sentence."""
        return f"{self.scale}: {'; '.join([self._conclusion, *self._remarks])}."

    @property
    def _pair(self) -> tuple[str, str]:
        return self.treatment.ladder.variant, self.treatment.ladder.control

    @property
    def _favourite(self) -> str | None:
        """Return the variant that the bet takes, whatever the gate says."""
        variant, control = self._pair
        by_decision = {BetDecision.BET_B: variant, BetDecision.BET_A: control}
        return by_decision.get(self.verdict.decision) if self.verdict else None

    @property
    def _conclusion(self) -> str:
        variant, control = self._pair
        if self._objection or self.verdict is None:
            return f"the evidence does not settle {variant} against {control}: {self._objection}"
        code, reason = self.verdict.decision.value, self.verdict.reason
        if self.verdict.decision is BetDecision.EITHER:
            return f"either {variant} or {control} will do ({code}): {reason}"
        return f"bet on {self.bet}, which is no verdict ({code}): {reason}"

    @property
    def _objection(self) -> str:
        """Return the reason not to bet; empty: there is none."""
        ladder, largest = self.treatment.ladder, self.treatment.largest.scale
        if ladder.decision is Decision.INVALID:
            flags = ", ".join(blocking_flags(ladder.flags))
            return f"its verdict is INVALID ({flags}): nothing is read from it"
        if self.verdict is None:
            if self.decades < 0:
                return f"it is smaller than {largest}, the largest scale trained, and bets are on larger runs"
            return f"{largest}, the largest scale trained, has no multiplier with an interval"
        if self.verdict.decision is BetDecision.OPEN:
            return f"{self.verdict.reason} (OPEN)"
        gate = self.treatment.gate
        if gate is None or gate.promote or self._favourite != gate.variant:
            return ""
        return f"its gate does not promote {gate.variant} ({gate.reason}), although {self.verdict.reason}"

    @property
    def _remarks(self) -> list[str]:
        """Return what else a reader should know before betting."""
        settle = self.verdict.settle if self.verdict else ""
        conditions = (
            (self._sign_text, self.treatment.leader is not None),
            ("but its lead shrinks with scale", self.bet is not None and self._lead_shrinks),
            (self._distance_text, self._has("TARGET_FAR")),
            (f"{EXPLANATIONS['ONE_SCALE']} (ONE_SCALE)", self._has("ONE_SCALE")),
            (LIMIT, self.bet is not None and self._has("DECLARED_DRIFT") and not self._has("ONE_SCALE")),
            ("the plan has this pair itself, which is there to tell", self.sibling),
            (f"what would settle it: {settle}", bool(settle)),
        )
        return [remark for remark, applies in conditions if applies]

    def _has(self, flag: str) -> bool:
        return self.verdict is not None and flag in self.verdict.flags

    @property
    def _lead_shrinks(self) -> bool:
        """True if ln k moves clearly against the variant that is ahead."""
        trend = self.treatment.ladder.trend
        if (
            trend is None
            or self.verdict is None
            or trend.direction not in (Direction.SHRINKS, Direction.GROWS)
        ):
            return False
        return trend.slope * self.verdict.estimate.log_k < 0

    @property
    def _distance_text(self) -> str:
        beyond = f"decades of compute beyond {self.treatment.largest.scale}"
        return f"it lies {self.decades:.1f} {beyond} (TARGET_FAR)"

    @property
    def _sign_text(self) -> str:
        """Return which variant leads at the largest scale, and the chance that it does here."""
        delta, largest = self.treatment.largest.delta, self.treatment.largest.scale
        clear = delta.low is not None and delta.high is not None and not delta.low <= 0 <= delta.high
        text = f"{self.treatment.leader} is ahead at {largest}{'' if clear else ' (not clear of zero)'}"
        if self.verdict is None or not self.verdict.lean:
            return text
        chance, favours_treatment = self.verdict.estimate.chance, self.treatment.leader == self._pair[0]
        return f"{text}, and here with chance {chance if favours_treatment else 1 - chance:.2f}"
