"""Verdict in words: the sentence that a colleague would say, with the code and the numbers in brackets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from harness.compare.results.verdict_types import BetVerdict, Decision, Ladder
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.estimates import Multiplier, SlopeAxis
from harness.core.number_format import format_scientific, plain_text

MULTIPLIED = {SlopeAxis.k_tokens: "tokens", SlopeAxis.k_compute: "compute"}
"""Quantity that k multiplies."""
NOTHING = "Nothing to compare: no treatment has runs at a scale of the control."


def verdict_text(ladders: Sequence[Ladder], step_seconds: Mapping[str, float]) -> str:
    """Return the verdict in words, one line per treatment."""
    lines = (plain_text(verdict_sentence(ladder, step_seconds)) for ladder in ladders)
    return "\n".join(lines) or NOTHING


def verdict_sentence(ladder: Ladder, step_seconds: Mapping[str, float]) -> str:
    """Return the verdict on one treatment: at the largest scale per token, then per FLOP and per second where
    these are known, then for a larger run.

    step_seconds: seconds per step by variant, each timed alone; empty if they were not timed.
    """
    role = ", the positive control," if ladder.positive_control else ""
    if ladder.decision is Decision.INVALID or ladder.here is None:
        return f"{ladder.variant}{role} cannot be judged against {ladder.control}: {ladder.reason} (INVALID)."
    phrase = decision_phrase(ladder.decision, treatment=f"{ladder.variant}{role}", control=ladder.control)
    phrase += place_phrase(ladder)
    open_question = ladder.decision is Decision.INCONCLUSIVE
    reason = ladder.reason if open_question else tokens_phrase(ladder)
    numbers = "; ".join(filter(None, (ladder.decision.value, _numbers_text(ladder.here.k))))
    sentence = f"{phrase}{f': {reason}' if reason else ''} ({numbers})."
    return " ".join(filter(None, [sentence, *_cost_sentences(ladder, step_seconds), bet_sentence(ladder)]))


def place_phrase(ladder: Ladder) -> str:
    """Return ` at m` with the largest scale that was trained; '' if there is one scale only."""
    return f" at {ladder.here.scale}" if ladder.here and len(ladder.scales) > 1 else ""


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
    text = f"k = {k:.3f} [{low:.3f}, {high:.3f}] at 90 %"
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
    """Return k in words: `mha needs 12 % fewer tokens for the same loss`; '' without a multiplier."""
    item = ladder.here.k if ladder.here else None
    if item is None or item.k is None:
        return ""
    k, quantity = item.k, MULTIPLIED[item.estimand]
    if k >= 2:
        amount = f"{k:.3g} times the {quantity}"
    else:
        fewer = "less" if item.estimand is SlopeAxis.k_compute else "fewer"
        amount = f"{100 * abs(k - 1):.2g} % {'more' if k >= 1 else fewer} {quantity}"
    return f"{ladder.control} needs {amount} for the same loss"


def cost_multipliers(ladder: Ladder, step_seconds: Mapping[str, float]) -> dict[str, Multiplier]:
    """Return k `per FLOP` and `per second`, with their intervals, where it differs from k and is known.

    The ratios of FLOPs and of seconds between the variants are taken as exact.
    """
    k = ladder.here.k if ladder.here else None
    times = [step_seconds.get(name) for name in (ladder.control, ladder.variant)]
    if k is None or k.k is None:
        return {}
    multipliers = {} if k.k_per_flop is None else {"per FLOP": scaled_multiplier(k, k.k_per_flop / k.k)}
    if times[0] and times[1]:
        multipliers["per second"] = scaled_multiplier(k, times[0] / times[1])
    return multipliers


def scaled_multiplier(k: Multiplier, factor: float) -> Multiplier:
    """Return k and its interval times a factor that is known exactly."""
    log, numbers = math.log(factor), {"k": k.k, "low": k.low, "high": k.high}
    logs = {"log_k": k.log_k, "log_low": k.log_low, "log_high": k.log_high}
    changes = {name: value if value is None else value * factor for name, value in numbers.items()}
    changes |= {name: value if value is None else value + log for name, value in logs.items()}
    return dataclasses.replace(k, **changes)


def _numbers_text(k: Multiplier | None) -> str:
    if k is None or k.k is None or k.low is None or k.high is None:
        return ""
    return f"k = {_interval_text(k)}, {k.n} pairs"


def _interval_text(k: Multiplier) -> str:
    return f"{k.k:.3f} [{k.low:.3f}, {k.high:.3f}]"


def _cost_sentences(ladder: Ladder, step_seconds: Mapping[str, float]) -> Iterator[str]:
    """Yield what holds per FLOP and per second, at the level that Holm's procedure gives this variant."""
    here = ladder.here
    for cost, k in cost_multipliers(ladder, step_seconds).items():
        if k.low is None or here is None or here.k is None or here.holm_low is None or here.holm_high is None:
            continue
        shift = (k.log_k or 0.0) - (here.k.log_k or 0.0)
        outcome = f"{ladder.variant} and {ladder.control} cannot be told apart"
        if here.holm_low + shift > 0 or here.holm_high + shift < 0:
            outcome = f"{ladder.variant} is {'better' if here.holm_low + shift > 0 else 'worse'}"
        yield f"{cost[0].upper()}{cost[1:]}, {outcome} (k = {_interval_text(k)})."
