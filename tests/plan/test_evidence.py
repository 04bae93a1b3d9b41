"""What a sweep of pairs says of larger runs: the bet on them, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import t as student

from harness.compare import compare
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.bet import DATA_DRIFT, BetDecision, Drift
from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.estimates import SlopeAxis
from harness.core.errors import UserError
from harness.plan.extrapolation.evidence import read_evidence
from tests.plan.evidence import AT, DECADE, make_rung, pair_evidence, treatment_evidence


def bet_on(evidence, ahead: float, variant="b"):
    """The bet `ahead` e-folds beyond the largest scale."""
    return evidence.bets(math.exp(AT[-1] + ahead))[variant]


def bet_a_decade_on(evidence):
    """The bet on the treatment of a sweep on disk."""
    return evidence.bets(10 * evidence.treatments[0].largest.flops)["delta_hybrid"]


@pytest.mark.parametrize("ahead", [0.5, DECADE, 13 * DECADE])
def test_one_scale_is_carried_by_the_declared_drift_alone(ahead):
    """By hand: variances add, the declared drift has 3 degrees of freedom (Satterthwaite 1946)."""
    bet = bet_on(pair_evidence(treatment_evidence([0.2], 0.01, df=2.0, at=AT[-1:])), ahead)
    noise, drift = 0.01**2, 0.03**2 * ahead
    df = (noise + drift) ** 2 / (noise**2 / 2 + drift**2 / 3)
    half = student.ppf(0.95, df) * math.sqrt(noise + drift)
    assert (bet.estimate.low, bet.estimate.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert bet.estimate.chance == pytest.approx(student.cdf(0.2 / math.sqrt(noise + drift), df))
    assert {"ONE_SCALE", "DECLARED_DRIFT"} <= {*bet.flags}
    assert ("TARGET_FAR" in bet.flags) == (ahead > 2 * DECADE)


def test_the_level_is_that_of_the_largest_scale_and_the_interval_widens():
    evidence = pair_evidence(treatment_evidence(0.02 * AT - 0.4))
    bets = [bet_on(evidence, ahead).estimate for ahead in (0.0, DECADE, 13 * DECADE, 600)]
    assert [bet.log_k for bet in bets] == pytest.approx([0.02 * AT[-1] - 0.4] * 4)
    widths = [bet.high - bet.low for bet in bets]
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(2 * student.ppf(0.95, 4.0) * 0.01), (
        "at the scale itself its own at 90 %"
    )


def test_a_run_of_the_largest_trained_size_is_no_smaller_one():
    evidence = pair_evidence(treatment_evidence([0.1] * 4))
    assert bet_on(evidence, -0.005) == bet_on(evidence, 0.0)
    assert bet_on(evidence, -0.02) is None


def test_holm_counts_every_treatment():
    """Alone, b is clear; among three with two that tell nothing it is not (p of one side times 3)."""
    b, c, d = (
        treatment_evidence([level] * 4, variant=name)
        for name, level in (("b", 0.13), ("c", 0.0), ("d", 0.01))
    )
    alone, among = (bet_on(pair_evidence(*group), 4.0) for group in ((b,), (b, c, d)))
    assert alone.estimate == among.estimate
    assert alone.p_holm is not None
    assert among.p_holm == pytest.approx(3 * alone.p_holm)
    assert alone.p_holm < 0.05 < 3 * alone.p_holm
    assert (alone.decision, among.decision) == (BetDecision.BET_B, BetDecision.OPEN)


def test_margin_and_level_are_those_of_the_rule():
    equal = treatment_evidence([0.001, -0.001, 0.001], 0.002, at=AT[-3:])
    assert bet_on(pair_evidence(equal, bet_margin=0.2), 1.0).decision is BetDecision.EITHER
    assert bet_on(pair_evidence(equal, bet_margin=0.01), 1.0).decision is BetDecision.OPEN
    ahead = treatment_evidence([0.12] * 4)
    decisions = [bet_on(pair_evidence(ahead, alpha=alpha), 1.0).decision for alpha in (0.05, 1e-4)]
    assert decisions == [BetDecision.BET_B, BetDecision.OPEN]


@pytest.mark.parametrize("decades", [1, 13])
@pytest.mark.parametrize("walk", [0.0, 0.03])
def test_the_interval_holds_what_is_true_about_as_often_as_it_says(decades, walk):
    """600 sweeps of four scales and three pairs, whose ln k walks by `walk` per root e-fold of compute."""
    random, sd, reps = np.random.default_rng(1), 0.02, 600
    ahead = decades * DECADE
    steps = walk * random.normal(0, 1, (reps, 4)) * np.sqrt([*np.diff(AT), ahead])
    truth = 0.05 + np.concatenate([np.zeros((reps, 1)), steps.cumsum(1)], 1)
    pairs = truth[:, None, :4] + random.normal(0, sd, (reps, 3, 4))
    template, hits = treatment_evidence([0.0] * 4), 0
    for seen, true in zip(pairs, truth[:, 4], strict=True):
        means, errors = seen.mean(0), seen.std(0, ddof=1) / math.sqrt(3)
        k = [
            multiplier_with_interval(SlopeAxis.k_tokens, m, s, 2.0, 3, ())
            for m, s in zip(means, errors, strict=True)
        ]
        rungs = tuple(make_rung("s", math.exp(x), one, sd) for x, one in zip(AT, k, strict=True))
        bet = bet_on(pair_evidence(dataclasses.replace(template, rungs=rungs)), ahead).estimate
        hits += bet.low <= true <= bet.high
    print(f"coverage {decades} decades beyond, walk {walk}: {hits / reps:.3f}")
    assert hits / reps >= 0.90 - 4 * math.sqrt(0.9 * 0.1 / reps)


def test_a_sweep_on_disk_is_read_and_its_bet_is_the_verdicts_own(swept):
    path = swept(beside={"gate": {"quality": 0.01}})
    evidence = read_evidence(path)
    (one,) = evidence.treatments
    assert one.gate.variant == "delta_hybrid"
    assert not one.gate.promote, "nothing was timed"
    assert (evidence.rule.control, one.ladder.variant, one.largest.scale) == ("mha", "delta_hybrid", "m")
    assert one.leader == "delta_hybrid"
    assert one.largest.flops
    (ladder,) = compare(path).ladder
    assert ladder.bet.estimate.target_flops == 10 * one.largest.flops
    assert evidence.bets(10 * one.largest.flops) == {"delta_hybrid": ladder.bet}
    assert ladder.bet.estimate.low <= math.log(1.05) <= ladder.bet.estimate.high
    assert one.e_folds_beyond(10 * one.largest.flops) == pytest.approx(DECADE)


def test_the_positive_control_is_counted_but_no_plan_trains_it(swept):
    path = swept(variants={"mha": 1.0, "short": 0.8, "delta_hybrid": 1.05}, positive_control="short")
    evidence = read_evidence(path)
    assert evidence.variants == ("mha", "delta_hybrid")
    own = {ladder.variant: ladder.bet for ladder in compare(path).ladder}
    assert evidence.bets(own["delta_hybrid"].estimate.target_flops) == own


@pytest.mark.parametrize("target", [{}, {"target": 1.0}])
@pytest.mark.parametrize(
    ("node", "rule", "drift"),
    [("model.attention", {}, Drift()), ("data.mix", {}, DATA_DRIFT), ("data", {"drift": 0.07}, Drift(0.07))],
)
def test_the_drift_is_that_of_the_question_also_without_a_bet_of_its_own(swept, node, rule, drift, target):
    def declare(draft):
        draft.run["touches"] = [node]

    evidence = read_evidence(swept(declare, beside={"rule": {"control": "mha"} | rule | target}))
    assert (evidence.treatments[0].ladder.bet is None) == bool(target)
    assert evidence.drifts == {"delta_hybrid": drift}
    assert bet_a_decade_on(evidence).drift == drift


def test_evidence_that_is_invalid_bets_on_nothing(swept):
    def other_code(draft):
        draft.run["code_hash"] = "f" * 64 if draft.variant == "mha" else "0" * 64

    evidence = read_evidence(swept(other_code))
    assert evidence.treatments[0].ladder.decision is Decision.INVALID
    assert evidence.bets(1e30) == {"delta_hybrid": None}


def _alone(draft):
    return draft.variant == "mha"


def _cut(draft):
    if (draft.scale, draft.variant, draft.seed) == ("s", "mha", 1):
        draft.status["state"], draft.ended = "preempted", False


def _missing_seed(draft):
    return draft.scale != "s" or draft.seed == 0


@pytest.mark.parametrize(
    ("changed", "edit", "said"),
    [
        ({"seeds": (0,)}, None, "have 1 seed at xs, and an interval needs 2"),
        ({}, _missing_seed, "1 of 12 runs have no loss|have 1 seed at s"),
        ({}, _cut, "1 of 18 runs have no loss at their end (s/mha/seed1 is preempted)"),
        ({}, _alone, "no two variants meet there"),
        ({"positive_control": "delta_hybrid"}, None, "no two variants meet there"),
    ],
)  # fmt: skip
def test_evidence_that_carries_nothing_is_refused(swept, changed, edit, said):
    path = swept(edit, **changed)
    with pytest.raises(UserError) as refused:
        read_evidence(path)
    assert str(refused.value).startswith(f"evidence={path}: ")
    assert any(each in str(refused.value) for each in said.split("|"))


@pytest.mark.parametrize("scales", [{"xs": 10**7}, {"xs": 10**7, "s": 3 * 10**7}])
def test_one_or_two_scales_allow_a_bet(swept, scales):
    evidence = read_evidence(swept(scales=scales))
    bet = bet_a_decade_on(evidence)
    assert ("ONE_SCALE" in bet.flags) == (len(scales) == 1)
    assert bet.estimate.line is None


def test_a_sweep_that_is_not_there_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^evidence=.*is not a sweep"):
        read_evidence(str(tmp_path))
