"""The verdict as a sentence: words first, code and numbers in brackets, and what each cost says."""

from __future__ import annotations

import dataclasses
import math

import pytest

from harness.compare.results.verdict_types import Decision, Ladder, LargestScale
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.estimates import Multiplier, SlopeAxis
from harness.compare.stats.speed_up import TimingRatio, effective_speed_up, shifted_multiplier
from harness.compare.verdict.verdict_text import (
    NOTHING,
    bet_sentence,
    cost_multipliers,
    tokens_phrase,
    verdict_sentence,
    verdict_text,
)
from harness.config.schema.decision import Axis
from tests.report.example import ladder, multiplier


def judged(log_k: float, decision: Decision, *, flops: float | None = None, **changes) -> Ladder:
    """A ladder whose treatment needs `flops` times the control's FLOPs per token."""
    item = ladder("short", log_k)
    k = multiplier(log_k, 0.03)
    k = dataclasses.replace(k, n=9, k_per_flop=None if flops is None else math.exp(log_k) / flops)
    given = {
        "largest_scale": with_k(item.largest_scale, k),
        "bet": None,
        "scales": ("m",),
        "decision": decision,
    }
    return dataclasses.replace(item, **given | {"reason": "the reason", **changes})


def with_k(largest_scale: LargestScale | None, k: Multiplier | None) -> LargestScale:
    assert largest_scale
    return dataclasses.replace(largest_scale, k=k)


def judged_bet(decision: BetDecision, log_k: float) -> Ladder:
    bet = ladder("short", log_k).bet
    assert bet
    return judged(
        log_k, Decision.A_BETTER, bet=dataclasses.replace(bet, decision=decision), scales=("s", "m")
    )


@pytest.mark.parametrize(
    ("decision", "log_k", "sentence"),
    [
        (
            Decision.A_BETTER,
            -0.128,
            "short is worse than mha at m: mha needs 12 % fewer tokens for the same loss "
            "(A_BETTER; k = 0.880 [0.854, 0.907], 9 pairs).",
        ),
        (
            Decision.B_BETTER,
            0.049,
            "short is better than mha at m: mha needs 5 % more tokens for the same loss "
            "(B_BETTER; k = 1.050 [1.019, 1.082], 9 pairs).",
        ),
        (
            Decision.EQUIVALENT,
            0.001,
            "short and mha are practically equal at m: mha needs 0.1 % more tokens for the same loss "
            "(EQUIVALENT; k = 1.001 [0.971, 1.031], 9 pairs).",
        ),
        (
            Decision.INCONCLUSIVE,
            0.01,
            "It is not settled whether short is better or worse than mha at m: the reason "
            "(INCONCLUSIVE; k = 1.010 [0.980, 1.041], 9 pairs).",
        ),
        (Decision.INVALID, 0.01, "short cannot be judged against mha: the reason (INVALID)."),
    ],
)
def test_a_colleague_would_say_it_so(decision, log_k, sentence):
    assert verdict_sentence(judged(log_k, decision)) == sentence


@pytest.mark.parametrize(
    ("decision", "log_k", "phrase"),
    [
        (BetDecision.BET_B, 0.2, "bet on short"),
        (BetDecision.BET_A, -0.2, "bet on mha"),
        (BetDecision.EITHER, 0.01, "either short or mha will do"),
        (BetDecision.OPEN, -0.01, "the choice between short and mha is open"),
    ],
)
def test_the_second_answer_names_target_decision_interval_and_chance(decision, log_k, phrase):
    sentence = bet_sentence(judged_bet(decision, log_k))
    k, low, high = (math.exp(log_k + d) for d in (0.0, -0.1, 0.1))
    assert sentence.startswith(f"For a run of 1.2e18 FLOPs, {phrase}: ")
    leader = "short" if log_k > 0 else "mha"
    assert f"({decision.value}; k = {k:.3f} [{low:.3f}, {high:.3f}] at 90 %; {leader} is better" in sentence
    assert sentence.endswith("there with chance 0.70).")


def test_the_scale_is_named():
    item = judged_bet(BetDecision.OPEN, -0.1)
    assert verdict_sentence(item).startswith("short is worse than mha at m: ")
    assert verdict_sentence(item).endswith(bet_sentence(item))
    assert bet_sentence(dataclasses.replace(item, bet=None)) == ""


def test_a_positive_control_is_named_as_one():
    sentence = verdict_sentence(judged(-0.1, Decision.A_BETTER, positive_control=True))
    assert sentence.startswith("short, the positive control, is worse than mha at m: ")


@pytest.mark.parametrize(
    ("log_k", "flops", "words"),
    [
        (-0.1, 0.8, "Per FLOP, short is better (k = 1.131"),
        (-0.1, 0.9, "Per FLOP, short and mha cannot be told apart (k = 1.005"),
        (-0.1, 1.1, "Per FLOP, short is worse (k = 0.823"),
    ],
)
def test_what_loses_per_token_may_win_per_flop(log_k, flops, words):
    item = judged(log_k, Decision.A_BETTER, flops=flops)
    assert words in verdict_sentence(item)
    assert "Per second" not in verdict_sentence(item)


def timed(item: Ladder, log_ratio: float, se: float = 0.002, **changes) -> Ladder:
    """The ladder, with the treatment's step time over the control's known to `se`."""
    assert item.largest_scale
    assert item.largest_scale.k
    ratio = TimingRatio(log_ratio, se, 3.0, 4, 2 * se)
    s = effective_speed_up(item.largest_scale.k, ratio)
    largest_scale = dataclasses.replace(item.largest_scale, step_time=ratio, speed_up=s, **changes)
    return dataclasses.replace(item, largest_scale=largest_scale)


def test_per_second_is_said_with_the_error_of_the_ratio_where_the_variants_were_timed():
    item = judged(-0.1, Decision.A_BETTER, flops=0.9)
    assert "Per second" not in verdict_sentence(item)
    better = verdict_sentence(timed(item, -0.25))
    assert "Per second, short is better: it wins by time and loses by loss (s = 1.162 [1.1" in better
    vague = verdict_sentence(timed(item, -0.25, 0.2))
    assert "Per second, short and mha cannot be told apart (s = 1.162 [0." in vague
    assert "Per second, short is worse (s = 0.9" in verdict_sentence(timed(item, 0.0))
    assert "Per " not in verdict_sentence(timed(judged(-0.1, Decision.INVALID, flops=0.9), -0.25))


def test_what_wins_by_loss_may_lose_by_time():
    sentence = verdict_sentence(timed(judged(0.1, Decision.B_BETTER), 0.3))
    assert "Per second, short is worse: it wins by loss and loses by time (s = 0.819 [" in sentence


def test_a_noisy_ratio_is_named():
    item = dataclasses.replace(timed(judged(0.1, Decision.B_BETTER), 0.3), flags=("NOISY_TIMING",))
    assert "NOISY_TIMING)." in verdict_sentence(item)


@pytest.mark.parametrize(("axis", "k"), [(Axis.flops, "k = 1.131"), (Axis.seconds, "s = 1.221")])
def test_the_deciding_axis_leads_and_the_loss_follows(axis, k):
    item = timed(judged(-0.1, Decision.B_BETTER, flops=0.8), -0.3, axis=axis)
    sentence = verdict_sentence(item)
    amount = "FLOPs" if axis is Axis.flops else "device-seconds"
    assert sentence.startswith(f"short is better than mha at m, at equal {amount}: mha needs ")
    assert f"more {amount} for the same loss (B_BETTER; {k} [" in sentence
    assert "Per token, short is worse (k = 0.905" in sentence
    assert sentence.count(f"Per {'FLOP' if axis is Axis.flops else 'second'}, ") == 0


def test_a_factor_moves_k_and_its_interval_and_keeps_their_ratio():
    k = multiplier(-0.1, 0.03)
    moved = shifted_multiplier(k, math.log(1.25))
    assert None not in (k.k, k.low, k.high, moved.k, moved.low, moved.high, moved.log_low)
    assert moved.k == pytest.approx(1.25 * math.exp(-0.1))
    assert moved.high / moved.low == pytest.approx(k.high / k.low)  # pyright: ignore
    assert moved.log_low == pytest.approx(math.log(moved.low))  # pyright: ignore
    assert cost_multipliers(judged(0, Decision.A_BETTER, largest_scale=None)) == {}


def test_large_and_compute_multipliers_in_words():
    assert tokens_phrase(judged(math.log(3.2), Decision.B_BETTER)) == (
        "mha needs 3.2 times the tokens for the same loss"
    )
    item = judged(-0.1, Decision.A_BETTER)
    assert item.largest_scale
    assert item.largest_scale.k
    k = dataclasses.replace(item.largest_scale.k, estimand=SlopeAxis.k_compute)
    compute = dataclasses.replace(item, largest_scale=with_k(item.largest_scale, k))
    assert tokens_phrase(compute) == "mha needs 9.5 % less compute for the same loss"
    assert tokens_phrase(dataclasses.replace(item, largest_scale=with_k(item.largest_scale, None))) == ""


def test_one_line_a_treatment_whatever_the_names():
    hostile = judged(-0.1, Decision.A_BETTER, variant="a\nb\x1b[2J")
    text = verdict_text([hostile, judged(0.1, Decision.B_BETTER)])
    assert len(text.split("\n")) == 2
    assert "\x1b" not in text
    assert verdict_text([]) == NOTHING
