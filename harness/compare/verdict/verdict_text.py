"""Verdict in words: the sentence that a colleague would say, with the code and the numbers in brackets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.compare.results.verdict_types import BetVerdict, Decision, Ladder, LargestScale
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Multiplier, SlopeAxis
from harness.compare.stats.speed_up import multiplier_per_flop
from harness.compare.verdict.decide import AXIS_AMOUNTS
from harness.config.schema.decision import Axis
from harness.core.number_format import format_scientific, plain_text

MULTIPLIED = {
    SlopeAxis.k_tokens: "tokens",
    SlopeAxis.k_compute: "compute",
    SlopeAxis.k_flops: "FLOPs",
    SlopeAxis.k_seconds: "device-seconds",
}
"""Quantity that k multiplies."""
PER = {Axis.tokens: "per token", Axis.flops: "per FLOP", Axis.seconds: "per second"}
"""Cost that k counts on each axis."""
NOTHING = "Nothing to compare: no treatment has runs at a scale of the control."


def verdict_text(ladders: Sequence[Ladder]) -> str:
    """Return the verdict in words, one line per treatment."""
    lines = (plain_text(verdict_sentence(ladder)) for ladder in ladders)
    return "\n".join(lines) or NOTHING


def verdict_sentence(ladder: Ladder) -> str:
    """Return the verdict on one treatment: at the largest scale on the axis of the rule, then on the others
    that are known, then for a larger run."""
    role = ", the positive control," if ladder.positive_control else ""
    if ladder.decision is Decision.INVALID or ladder.largest_scale is None:
        return f"{ladder.variant}{role} cannot be judged against {ladder.control}: {ladder.reason} (INVALID)."
    phrase = decision_phrase(ladder.decision, treatment=f"{ladder.variant}{role}", control=ladder.control)
    phrase += place_phrase(ladder)
    open_question = ladder.decision is Decision.INCONCLUSIVE
    reason = ladder.reason if open_question else tokens_phrase(ladder)
    numbers = "; ".join(filter(None, (ladder.decision.value, _numbers_text(ladder.largest_scale))))
    sentence = f"{phrase}{f': {reason}' if reason else ''} ({numbers})."
    return " ".join(filter(None, [sentence, *_cost_sentences(ladder), bet_sentence(ladder)]))


def place_phrase(ladder: Ladder) -> str:
    """Return ` at m` with the largest scale at which both were trained, and what is made equal if that is not
    tokens."""
    if ladder.largest_scale is None:
        return ""
    place, axis = f" at {ladder.largest_scale.scale}", ladder.largest_scale.axis
    return place if axis is Axis.tokens else f"{place}, at equal {AXIS_AMOUNTS[axis]}"


def bet_sentence(ladder: Ladder) -> str:
    """Return what a larger run should take: `For a run of 1.2e12 FLOPs ...`; '' without a bet."""
    bet = ladder.bet
    if bet is None:
        return ""
    phrase = {
        BetDecision.BET_B: f"bet on {ladder.variant}",
        BetDecision.BET_A: f"bet on {ladder.control}",
        BetDecision.EITHER: f"either {ladder.variant} or {ladder.control} will do",
        BetDecision.OPEN: f"the choice between {ladder.variant} and {ladder.control} is open",
    }[bet.decision]
    target, numbers = format_scientific(bet.estimate.target_flops), _bet_numbers(ladder, bet)
    return f"For a run of {target} FLOPs, {phrase}: {bet.reason} ({bet.decision.value}; {numbers})."


def _bet_numbers(ladder: Ladder, bet: BetVerdict) -> str:
    """Return k at the target with its interval, and the chance of the variant that leads."""
    estimate = bet.estimate
    k, low, high = (math.exp(end) for end in (estimate.log_k, estimate.low, estimate.high))
    amounts = "" if bet.axis is Axis.tokens else f" at equal {AXIS_AMOUNTS[bet.axis]}"
    text = f"k{amounts} = {k:.3f} [{low:.3f}, {high:.3f}] at 90 %"
    if not bet.lean:
        return text
    chance = estimate.chance if bet.lean == ladder.variant else 1 - estimate.chance
    return f"{text}; {bet.lean} is better there with chance {chance:.2f}"


def decision_phrase(decision: Decision, *, treatment: str, control: str) -> str:
    """Return the decision as a clause with the names of the variants."""
    return {
        Decision.B_BETTER: f"{treatment} is better than {control}",
        Decision.A_BETTER: f"{treatment} is worse than {control}",
        Decision.EQUIVALENT: f"{treatment} and {control} are practically equal",
        Decision.INCONCLUSIVE: f"It is not settled whether {treatment} is better or worse than {control}",
        Decision.INVALID: f"{treatment} cannot be judged against {control}",
    }[decision]


def tokens_phrase(ladder: Ladder) -> str:
    """Return k on the deciding axis in words: `mha needs 12 % fewer tokens for the same loss`; '' without."""
    answer = ladder.largest_scale
    item = answer.multiplier if answer else None
    if answer is None or item is None or item.k is None:
        return ""
    k, by_tokens = item.k, answer.axis is Axis.tokens
    quantity = MULTIPLIED[item.estimand] if by_tokens else AXIS_AMOUNTS[answer.axis]
    if k >= 2:
        amount = f"{k:.3g} times the {quantity}"
    else:
        fewer = "less" if quantity == MULTIPLIED[SlopeAxis.k_compute] else "fewer"
        amount = f"{100 * abs(k - 1):.2g} % {'more' if k >= 1 else fewer} {quantity}"
    return f"{ladder.control} needs {amount} for the same loss"


def cost_multipliers(ladder: Ladder) -> dict[str, Multiplier]:
    """Return k `per FLOP` and `per second`, the latter with the error of the timed ratio, where it differs
    from k and is known. That of the deciding axis is among them."""
    k, answer = (ladder.largest_scale.k, ladder.largest_scale) if ladder.largest_scale else (None, None)
    if k is None or k.k is None or answer is None:
        return {}
    per_flop = multiplier_per_flop(k) if k.k_per_flop is not None or answer.axis is Axis.flops else None
    costs = {PER[Axis.flops]: per_flop, PER[Axis.seconds]: answer.speed_up}
    return {cost: item for cost, item in costs.items() if item is not None and item.k is not None}


def _numbers_text(answer: LargestScale) -> str:
    k = answer.multiplier
    if k is None or k.k is None or k.low is None or k.high is None:
        return ""
    name = "s" if answer.axis is Axis.seconds else "k"
    return f"{name} = {_interval_text(k)}, {k.n} pairs"


def _interval_text(k: Multiplier) -> str:
    return f"{k.k:.3f} [{k.low:.3f}, {k.high:.3f}]"


def _cost_sentences(ladder: Ladder) -> Iterator[str]:
    """Yield what holds on the other axes, at the level that Holm's procedure gives this variant."""
    answer = ladder.largest_scale
    if answer is None or answer.k is None or answer.k.k is None:
        return
    costs = {PER[Axis.tokens]: answer.k} | cost_multipliers(ladder)
    costs.pop(PER[answer.axis], None)
    for cost, k in costs.items():
        if k.low is not None:
            name = "s" if cost == PER[Axis.seconds] else "k"
            noisy = ", NOISY_TIMING" if name == "s" and "NOISY_TIMING" in ladder.flags else ""
            outcome = _outcome_phrase(ladder, answer, k, by_time=name == "s")
            yield f"{cost[0].upper()}{cost[1:]}, {outcome} ({name} = {_interval_text(k)}{noisy})."


def _outcome_phrase(ladder: Ladder, answer: LargestScale, k: Multiplier, *, by_time: bool) -> str:
    """Return what an interval says, and that loss and time disagree where they do."""
    side, by_loss = _side(k, answer.holm_level), _side(answer.k, answer.holm_level)
    if not side:
        return f"{ladder.variant} and {ladder.control} cannot be told apart"
    phrase = f"{ladder.variant} is {'better' if side > 0 else 'worse'}"
    if not by_time or side * by_loss >= 0:
        return phrase
    better, worse = ("loss", "time") if by_loss > 0 else ("time", "loss")
    return f"{phrase}: it wins by {better} and loses by {worse}"


def _side(k: Multiplier | None, alpha: float) -> int:
    """Return 1 if the interval that errs by alpha lies above 1, -1 if below, else 0."""
    if k is None or k.log_k is None or k.log_se is None or not k.df:
        return 0
    half = t_critical(k.df, 1 - alpha) * k.log_se
    return 1 if k.log_k > half else -1 if k.log_k < -half else 0
