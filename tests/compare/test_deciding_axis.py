"""A rule that decides by FLOPs or by device-seconds: both answers of a whole verdict, over made-up tables."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.compare.compare_curves import read_curve_inputs
from harness.compare.judge import judge
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.speed_up import effective_speed_up, timing_ratio
from harness.config.schema.decision import Axis
from tests.compare.numbers import exactly
from tests.compare.test_two_answers import PARAMETERS, table

LARGEST = 6.0 * PARAMETERS["l"] * 20 * PARAMETERS["l"]
BETTER = {"b": (-0.02, -0.02, -0.02)}
"""A treatment that wins by loss: ln k of .1 or so at every scale."""


def timing(ratio: float, *, scale: str = "l", scatter: float = 0.002, others: float = 0.0):
    """Content of timing.json: `b` takes `ratio` times as long a step."""
    log = math.log(ratio)
    quads = [[0.0, log + sign * scatter, log + sign * scatter, 0.0] for sign in (1, -1, 1, -1)]
    return {"scale": scale, "visits": {"b": quads}, "variants": {}, "others_share": others}


def verdict(axis: Axis, timed=None, *, flops: float = 1.0, **rule) -> Comparison:
    """Verdict on `b`, which needs `flops` times the control's FLOPs per token."""
    inputs = read_curve_inputs(table(BETTER), control="a")
    runs = [_with_flops(run, flops) for run in inputs.runs]
    rule = dataclasses.replace(inputs.rule, axis=axis, **rule)
    return judge(dataclasses.replace(inputs, runs=runs, rule=rule, timing=timed or {}))


def _with_flops(run, factor: float):
    if run.provenance.variant == "a":
        return run
    facts = run.provenance.facts
    facts = dataclasses.replace(facts, flops_per_token=factor * facts.flops_per_token)
    return dataclasses.replace(run, provenance=dataclasses.replace(run.provenance, facts=facts))


def answers(comparison: Comparison):
    (ladder,) = comparison.ladder
    return ladder.decision, ladder.bet and ladder.bet.decision


@pytest.mark.parametrize(
    ("ratio", "decision"), [(1.0, Decision.B_BETTER), (1.3, Decision.A_BETTER), (0.9, Decision.B_BETTER)]
)
def test_seconds_decide_by_k_over_the_ratio_of_step_times(ratio, decision):
    comparison = verdict(Axis.seconds, timing(ratio))
    (ladder,) = comparison.ladder
    assert ladder.decision is decision
    assert ladder.largest_scale
    assert ladder.largest_scale.k
    s = effective_speed_up(ladder.largest_scale.k, timing_ratio(timing(ratio)["visits"]["b"]))
    assert ladder.largest_scale.multiplier == ladder.largest_scale.speed_up == s
    assert ladder.largest_scale.p == s.p
    if ratio > 1:
        assert "b is worse than a at l, at equal device-seconds: a needs" in comparison.verdict
        assert "Per token, b is better" in comparison.verdict


def test_tokens_decide_whatever_the_time_and_say_who_loses_by_it():
    slow = verdict(Axis.tokens, timing(1.3))
    assert answers(slow) == answers(verdict(Axis.tokens))
    assert "Per second, b is worse: it wins by loss and loses by time (s = 0.8" in slow.verdict


def test_flops_decide_without_a_timing_error():
    assert answers(verdict(Axis.flops))[0] is Decision.B_BETTER
    heavy = verdict(Axis.flops, flops=1.3)
    assert answers(heavy) == (Decision.A_BETTER, BetDecision.BET_A)
    (ladder,) = heavy.ladder
    assert ladder.largest_scale
    assert ladder.largest_scale.k
    k, per_flop = ladder.largest_scale.k, ladder.largest_scale.multiplier
    assert per_flop
    assert per_flop.log_k is not None
    assert k.log_k is not None
    assert (per_flop.log_k, per_flop.log_se) == (exactly(k.log_k - math.log(1.3)), k.log_se)
    assert ladder.bet
    assert ladder.bet.estimate.log_k == exactly(per_flop.log_k)
    assert ladder.bet.axis is Axis.flops
    assert "k at equal FLOPs = " in heavy.verdict


def test_a_bet_in_seconds_needs_step_times_at_the_target():
    beyond = verdict(Axis.seconds, timing(1.3))
    (ladder,) = beyond.ladder
    assert ladder.bet
    assert ladder.bet.decision is BetDecision.OPEN
    assert "TARGET_UNTIMED" in ladder.bet.flags
    assert "TARGET_UNTIMED" in beyond.flags
    assert ladder.bet.settle.startswith("time the steps at the target")
    (there,) = verdict(Axis.seconds, timing(1.3), target=LARGEST).ladder
    assert there.bet
    assert (there.bet.decision, there.bet.axis) == (BetDecision.BET_A, Axis.seconds)
    assert there.largest_scale
    assert there.largest_scale.speed_up
    assert there.bet.estimate.log_k == there.largest_scale.speed_up.log_k


@pytest.mark.parametrize(
    "timed",
    [
        {},
        timing(0.5, scale="m"),
        {"scale": "l", "variants": {"a": {"step_seconds": 1.0}, "b": {"step_seconds": 0.5}}},
    ],
)
def test_without_the_ratio_of_this_scale_with_its_interval_seconds_decide_nothing(timed):
    comparison = verdict(Axis.seconds, timed, target=LARGEST)
    (ladder,) = comparison.ladder
    assert ladder.decision is Decision.INCONCLUSIVE
    assert ladder.reason == "the step times at l were not measured"
    assert ladder.settle.startswith("time the steps")
    assert ladder.bet
    assert ladder.bet.decision is BetDecision.OPEN


def test_a_noisy_ratio_on_a_shared_host_is_shown_and_decides_nothing():
    noisy = timing(0.5, scatter=0.04, others=0.5)
    shared = verdict(Axis.seconds, noisy, target=LARGEST)
    assert answers(shared) == (Decision.INVALID, BetDecision.OPEN)
    assert "NOISY_TIMING" in shared.verdict
    assert answers(verdict(Axis.seconds, noisy | {"others_share": 0.0}))[0] is Decision.B_BETTER
    by_tokens = verdict(Axis.tokens, noisy)
    assert answers(by_tokens) == answers(verdict(Axis.tokens))
    assert "NOISY_TIMING" in by_tokens.flags


def test_holm_and_equivalence_are_those_of_the_axis():
    (ladder,) = verdict(Axis.seconds, timing(1.105, scatter=0.0001), margin=0.2).ladder
    assert ladder.largest_scale
    assert ladder.largest_scale.equivalence
    assert ladder.largest_scale.equivalence.passed
    assert ladder.largest_scale.holm_low is not None
    assert ladder.largest_scale.holm_high is not None
    assert (
        ladder.largest_scale.holm_low < 0 < ladder.largest_scale.holm_high
        or ladder.decision is not Decision.EQUIVALENT
    )
    assert np.isclose(ladder.largest_scale.holm_level, 0.05)
