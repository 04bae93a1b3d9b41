"""Words of a bet that claim no more than they may."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.results.verdict_types import Decision, GateResult
from harness.plan.extrapolation.recommend import Recommendation
from tests.plan.evidence import AT, DECADE, treatment_evidence

number = st.floats(-0.5, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    log_k=st.lists(number, min_size=4, max_size=4),
    se=st.floats(0.001, 0.3),
    decision=st.sampled_from(Decision),
    decades=st.floats(-2, 15),
    promote=st.sampled_from([None, True, False]),
    sibling=st.booleans(),
)
def test_no_sentence_claims_more_than_the_design_carries(log_k, se, decision, decades, promote, sibling):
    gate = None if promote is None else GateResult("b", promote, 3, (), "won 3 of 4")
    flags = ("MIXED_CODE",) if decision is Decision.INVALID else ("LOW_DF",)
    treatment = treatment_evidence(log_k, se, decision=decision, gate=gate, flags=flags)
    span = treatment.log_k(math.exp(AT[-1] + decades * DECADE))
    case = Recommendation("6t", treatment, span, decades, sibling)
    wins = {Decision.B_BETTER: "b", Decision.A_BETTER: "a"}.get(decision)
    sign = "b" if log_k[-1] > 0 else "a" if log_k[-1] < 0 else None
    beyond = decades > 1
    line = None if span is None or span.low <= 0 <= span.high else "b" if span.low > 0 else "a"
    may = wins is not None and wins == sign == line and not beyond and not (wins == "b" and promote is False)
    assert case.bet == (wins if may else None)
    text = case.sentence
    assert ("bet on" in text) == may
    assert ("does not settle" in text) != may
    assert ("decides nothing" in text) == (beyond and decision is not Decision.INVALID)
    assert (f"{decades - 1:.1f} decades" in text) or not beyond or decision is Decision.INVALID
    assert not {"better", "wins", "proves"} & set(text.split())
    assert {each.value for each in Decision if each.value in text} <= {decision.value}
    assert re.fullmatch(r"6t: .*[^.]\.", text)
    assert ". " not in text, "one sentence"
    if decision is Decision.INVALID:
        assert span is None
        assert "ahead" not in text
        assert "MIXED_CODE" in text


SURE = {"log_k": [0.3, 0.31, 0.3, 0.31], "se": 0.001, "decision": Decision.B_BETTER}


@pytest.mark.parametrize(
    ("changed", "decades", "said"),
    [
        ({}, 0.5, "bet on b, which is no verdict"),
        ({"decision": Decision.EQUIVALENT}, 0.5, "over the scales trained is EQUIVALENT"),
        ({"decision": Decision.A_BETTER}, 0.5, "3, the largest trained, disagrees"),
        ({"decision": Decision.INVALID, "flags": ("HOT_LR_LOOK",)}, 0.5, "INVALID (HOT_LR_LOOK): nothing is"),
        ({"se": 0.5}, 0.5, "the projected interval holds k = 1"),
        ({"log_k": [0.7, 0.5, 0.3, 0.1]}, 1.0, "the line has turned to a"),
        ({"log_k": [0.4, 0.39, 0.38, 0.37]}, 0.5, "but its lead shrinks with scale"),
        ({"at": AT[[0, 0, 0, 0]]}, 0.5, "no line can be drawn"),
        ({"gate": GateResult("b", False, 2, (), "won 2 of 4")}, 0.5, "does not promote b (won 2 of 4)"),
        ({"gate": GateResult("b", True, 3, (), "won 3 of 4")}, 0.5, "bet on b"),
        ({}, 14.0, "it lies 13.0 decades of compute beyond where the line may be drawn, and its number"),
    ],
)  # fmt: skip
def test_each_doubt_alone_forbids_the_bet_and_is_said(changed, decades, said):
    treatment = treatment_evidence(**SURE | changed)
    case = Recommendation(
        "6t", treatment, treatment.log_k(math.exp(AT[-1] + decades * DECADE)), decades, False
    )
    assert said in case.sentence
    assert (case.bet == "b") == ("bet on b" in case.sentence) == ("bet" in said or "shrinks" in said)
    assert case.bet or ";" not in case.sentence.partition("; what is left")[0], "one doubt"


def test_a_line_beyond_a_decade_never_bets_however_narrow():
    sure = treatment_evidence([0.1] * 4, 1e-6, decision=Decision.B_BETTER)
    near, far = (sure.log_k(math.exp(AT[-1] + d * DECADE)) for d in (0.9, 1.1))
    assert (
        Recommendation("x", sure, near, 0.9, False).bet,
        Recommendation("x", sure, far, 1.1, False).bet,
    ) == ("b", None)
