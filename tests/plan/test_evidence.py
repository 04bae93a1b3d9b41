"""What a sweep of pairs says of larger runs: the line that is carried, and what is refused."""

import math

import numpy as np
import pytest

from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.stats.compute_multiplier import multiplier_with_interval
from harness.compare.stats.estimates import SlopeAxis
from harness.core.errors import UserError
from harness.plan.extrapolation.evidence import TreatmentEvidence, read_evidence
from tests.plan.evidence import AT, DECADE, make_rung, make_with_defaults, treatment_evidence


def test_a_planted_line_is_carried_and_its_interval_widens():
    treatment = treatment_evidence(0.02 * AT - 0.4)
    spans = [treatment.log_k(math.exp(AT[-1] + ahead)) for ahead in (0.0, DECADE, 13 * DECADE, 600)]
    for span, ahead in zip(spans, (0.0, DECADE, 13 * DECADE, 600), strict=True):
        assert span.value == pytest.approx(0.02 * (AT[-1] + ahead) - 0.4, abs=1e-9)
    widths = [span.high - span.low for span in spans]
    assert widths == sorted(widths)
    assert widths[2] > 5 * widths[1] > 5 * widths[0]


def test_least_squares_say_the_same_of_scales_that_weigh_alike():
    log_k = np.random.default_rng(0).normal(0, 0.05, 4)
    at = AT[-1] + 2.0
    assert treatment_evidence(log_k).log_k(math.exp(at)).value == pytest.approx(
        np.polyval(np.polyfit(AT, log_k, 1), at)
    )


@pytest.mark.parametrize(
    ("decades", "scatter", "least"), [(1, 0, 0.95), (13, 0, 0.95), (1, 1, 0.95), (1, 5, 0.93)]
)
def test_the_interval_holds_what_is_true_about_as_often_as_it_says(decades, scatter, least):
    """600 sweeps of three pairs a scale. `scatter`: SD of scales about the line, in SDs of a pair; of such
    it is estimated from two degrees of freedom, so that the interval is a little narrow where it rules."""
    random, sd, reps = np.random.default_rng(1), 0.02, 600
    at, own = AT[-1] + decades * DECADE, scatter * sd * random.normal(0, 1, (reps, 5))
    pairs = (0.3 - 0.01 * AT + own[:, :4])[:, None] + random.normal(0, sd, (reps, 3, 4))
    hits = 0
    for seen, true in zip(pairs, 0.3 - 0.01 * at + own[:, 4], strict=True):
        means, errors = seen.mean(0), seen.std(0, ddof=1) / math.sqrt(3)
        k = [
            multiplier_with_interval(SlopeAxis.k_tokens, m, s, 2.0, 3, ())
            for m, s in zip(means, errors, strict=True)
        ]
        rungs = tuple(make_rung("s", math.exp(x), one, sd) for x, one in zip(AT, k, strict=True))
        span = TreatmentEvidence(
            make_with_defaults(Ladder, decision=Decision.INCONCLUSIVE), rungs, None
        ).log_k(math.exp(at))
        hits += span.low <= true <= span.high
    print(f"coverage {decades} decades beyond, scatter {scatter}: {hits / reps:.3f}")
    assert least - 4 * math.sqrt(0.95 * 0.05 / reps) <= hits / reps < 0.995


def test_a_sweep_on_disk_is_read_and_carried(swept):
    evidence = read_evidence(swept(beside={"gate": {"quality": 0.01}}))
    (one,) = evidence.treatments
    assert one.gate.variant == "delta_hybrid"
    assert not one.gate.promote, "nothing was timed"
    assert (evidence.control, one.ladder.variant, one.largest.scale) == ("mha", "delta_hybrid", "m")
    assert one.leader == "delta_hybrid"
    assert one.largest.flops
    span = one.log_k(10 * one.largest.flops)
    assert span.low <= math.log(1.05) <= span.high
    assert one.e_folds_beyond(10 * one.largest.flops) == pytest.approx(DECADE)


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
        ({"scales": {"xs": 10**7, "s": 3 * 10**7}}, None, "meet at 2 scales, and a trend needs 3"),
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


def test_a_sweep_that_is_not_there_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^evidence=.*is not a sweep"):
        read_evidence(str(tmp_path))
