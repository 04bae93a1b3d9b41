"""Words of a recommendation that claim no more than they may."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.results.verdict_types import Decision, GateResult
from harness.compare.stats.bet import BetDecision
from harness.plan.extrapolation.recommend import LIMIT, Recommendation
from tests.plan.evidence import AT, DECADE, pair_evidence, treatment_evidence

number = st.floats(-0.5, 0.5)
DECISIONS = {each.value for each in (*Decision, *BetDecision)}


def recommended(treatment, decades: float, sibling=False, **rule) -> Recommendation:
    """The recommendation `decades` beyond the largest scale."""
    evidence = pair_evidence(treatment, **rule)
    verdict = evidence.bets(treatment.largest.flops * math.exp(decades * DECADE))["b"]
    return Recommendation("6t", treatment, verdict, decades, sibling)


@settings(max_examples=150, deadline=None)
@given(
    log_k=st.lists(number, min_size=1, max_size=4),
    se=st.floats(0.001, 0.3),
    valid=st.booleans(),
    decades=st.floats(-2, 15),
    promote=st.sampled_from([None, True, False]),
    sibling=st.booleans(),
)
def test_no_sentence_claims_more_than_the_design_carries(log_k, se, valid, decades, promote, sibling):
    gate = None if promote is None else GateResult("b", promote, 3, (), "won 3 of 4")
    decision, flags = (Decision.INCONCLUSIVE, ("LOW_DF",)) if valid else (Decision.INVALID, ("MIXED_CODE",))
    treatment = treatment_evidence(log_k, se, decision=decision, gate=gate, flags=flags, at=AT[: len(log_k)])
    case = recommended(treatment, decades, sibling)
    bet = case.verdict.decision if case.verdict else None
    takes = "b" if bet is BetDecision.BET_B else "a" if bet is BetDecision.BET_A else None
    may = takes is not None and not (takes == "b" and promote is False)
    assert case.bet == (takes if may else None)
    assert (case.verdict is None) == (not valid or decades * DECADE < -0.01)
    text = case.sentence
    assert ("bet on b" in text or "bet on a" in text) == may
    assert ("does not settle" in text) == (not may and bet is not BetDecision.EITHER)
    assert (f"{decades:.1f} decades" in text) == ("(TARGET_FAR)" in text) == (valid and decades > 2)
    assert ("(ONE_SCALE)" in text) == (case.verdict is not None and len(log_k) == 1)
    assert (LIMIT in text) == (may and len(log_k) > 1 and case.verdict.estimate.seen_df < 1)
    assert not {"better", "wins", "proves"} & set(text.split())
    assert {each for each in DECISIONS if f"({each})" in text} <= ({bet.value} if bet else set())
    assert re.fullmatch(r"6t: .*[^.]\.", text)
    assert ". " not in text, "one sentence"
    if not valid:
        assert "ahead" not in text
        assert "MIXED_CODE" in text


@settings(max_examples=100, deadline=None)
@given(log_k=st.lists(number, min_size=1, max_size=4), se=st.floats(0.001, 0.3), decades=st.floats(0, 5))
def test_exchanging_the_variants_mirrors_the_bet(log_k, se, decades):
    one, other = (
        recommended(treatment_evidence([sign * x for x in log_k], se, at=AT[: len(log_k)]), decades)
        for sign in (1, -1)
    )
    assert {"a": "b", "b": "a", None: None}[one.bet] == other.bet
    assert one.verdict.estimate.chance == pytest.approx(1 - other.verdict.estimate.chance)


SURE = {"log_k": [0.3, 0.31, 0.3, 0.31], "se": 0.001}
OPEN = "the evidence does not settle b against a: "


@pytest.mark.parametrize(
    ("changed", "decades", "said"),
    [
        ({}, 0.5, "bet on b, which is no verdict (BET_B): k there is clear of 1; b is ahead at 3, and here "),
        ({"log_k": [-0.3, -0.31, -0.3, -0.31]}, 0.5, "bet on a, which is no verdict (BET_A)"),
        ({"decision": Decision.A_BETTER}, 0.5, "bet on b"),
        ({"decision": Decision.INVALID, "flags": ("HOT_LR_LOOK",)}, 0.5, OPEN + "its verdict is INVALID ("),
        ({"flags": ("DECAY_UNVERIFIED",)}, 0.5, OPEN + "DECAY_UNVERIFIED: "),
        ({"se": 0.5}, 0.5, OPEN + "k there is not clear of 1 (OPEN); b is ahead at 3 (not clear of zero), "),
        ({"log_k": [0.7, 0.6, 0.5, 0.4]}, 2.0, OPEN + "TREND_AGAINST: the line"),
        ({"log_k": [0.34, 0.33, 0.32, 0.31]}, 0.5, "but its lead shrinks with scale"),
        ({"gate": GateResult("b", False, 2, (), "won 2 of 4")}, 0.5, OPEN + "its gate does not promote b (w"),
        ({"gate": GateResult("b", True, 3, (), "won 3 of 4")}, 0.5, "bet on b"),
        ({"log_k": [0.3], "at": AT[-1:]}, 0.5, "how k changes with scale is assumed alone (ONE_SCALE)"),
        ({}, 2.5, "it lies 2.5 decades of compute beyond 3 (TARGET_FAR)"),
        ({"log_k": [0.1] * 4}, 14.0, "3 (TARGET_FAR); what would settle it: the next scale, or a ne"),
    ],
)  # fmt: skip
def test_what_decides_is_said(changed, decades, said):
    case = recommended(treatment_evidence(**SURE | changed), decades)
    assert said in case.sentence
    assert (case.bet is None) == (OPEN in case.sentence)
    assert ("what would settle it" in case.sentence) == bool(case.verdict and "(OPEN)" in case.sentence)


def test_a_gate_that_does_not_promote_forbids_only_its_own_variant():
    gate = GateResult("b", False, 2, (), "won 2 of 4")
    assert recommended(treatment_evidence([-0.3] * 4, gate=gate), 0.5).bet == "a"
