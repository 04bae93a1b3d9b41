"""Stopping by looks: what ends a scale, and what a verdict is worth that was reached by peeking."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats

from harness.compare import compare
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision
from harness.compare.stats import paired_effects, sequential
from harness.compare.stats.sequential import alpha_spending, sequential_p
from harness.compare.verdict.interim_looks import decide_look
from tests.compare import simulate
from tests.compare.synthetic import Draft, Recipe, at_look, write_sweep

SHARES = (0.4, 0.6, 0.8)
BASE = Recipe(
    scales={"xs": 10**7}, seeds=tuple(range(5)), branches=SHARES, stopping="looks", with_steps=False
)


def recipe(**changes) -> Recipe:
    return Recipe(**BASE.__dict__ | changes)


def better(**changes) -> Recipe:
    return recipe(variants={"mha": 1.0, "hybrid": 1.3}, **changes)


def waiting_at(share: float):
    return lambda draft: at_look(draft, share, "waiting")


def decided(tmp_path, made: Recipe, look: int, edit=None):
    def both(draft: Draft):
        at_look(draft, SHARES[look - 1], "waiting")
        return edit(draft) if edit else None

    return decide_look(write_sweep(tmp_path / "sweep", made, both), "xs", look, SHARES)


def stopped(tmp_path, made: Recipe, share: float, edit=None) -> Comparison:
    def both(draft: Draft):
        at_look(draft, share)
        return edit(draft) if edit else None

    return compare(write_sweep(tmp_path / "sweep", made, both))


def test_efficacy_needs_the_look_before(tmp_path):
    first = decided(tmp_path / "a", better(), 1)
    assert (first.stop, first.outcomes, first.looks) == (False, {"hybrid": "continue"}, 4)
    second = decided(tmp_path / "b", better(), 2)
    assert (second.stop, second.outcomes) == (True, {"hybrid": "efficacy"})
    assert second.sentence.startswith("xs, look 2 of 4 (60% of the tokens): stop. hybrid: efficacy (p ")
    assert f"alpha {alpha_spending(2, 4):.2g}, n = 5" in second.sentence


def test_futility_needs_a_slope_and_a_narrow_interval(tmp_path):
    quiet = recipe(variants={"mha": 1.0, "hybrid": 1.0}, run_sd=1e-6, correlation=0.9, margin=0.02)
    assert decided(tmp_path / "a", quiet, 1).outcomes == {"hybrid": "continue"}
    assert decided(tmp_path / "b", quiet, 2).outcomes == {"hybrid": "futility"}
    noisy = recipe(variants={"mha": 1.0, "hybrid": 1.0})
    assert decided(tmp_path / "c", noisy, 2).outcomes == {"hybrid": "continue"}


def test_alpha_is_shared_by_treatments_and_scales(tmp_path):
    """A difference that one test alone would stop for, and six would not."""
    made = recipe(variants={"mha": 1.0, "hybrid": 1.05}, rng=3)
    alone = decided(tmp_path / "a", made, 3)
    assert alone.outcomes == {"hybrid": "efficacy"}
    sweep = write_sweep(tmp_path / "b", made, waiting_at(0.8))
    p = compare(sweep).rungs[0].looks[2].delta.p
    assert p
    rule = json.loads(sweep.rule.read_text())
    rule["rule"]["family"] = [f"v{i}" for i in range(math.ceil(alpha_spending(3, 4) / p))]
    sweep.rule.write_text(json.dumps(rule))
    assert decide_look(sweep, "xs", 3, SHARES).outcomes == {"hybrid": "continue"}


def test_a_scale_waits_for_all_its_treatments(tmp_path):
    """The positive control is one of them. What was decided stays decided."""
    made = recipe(variants={"mha": 1.0, "hybrid": 1.002, "short": 0.6}, positive_control="short")
    for look in (2, 3):
        decision = decided(tmp_path / str(look), made, look)
        assert decision.outcomes == {"hybrid": "continue", "short": "efficacy"}
        assert not decision.stop


def test_a_decided_treatment_stays_so_when_its_p_rises_again(tmp_path):
    def noise(draft: Draft):
        for row in draft.branches.get(0.8, ()) if draft.variant == "hybrid" else ():
            row["loss"] += 0.3 * (-1) ** draft.seed

    decision = decided(tmp_path, better(), 3, noise)
    assert decision.outcomes == {"hybrid": "efficacy"}


@pytest.mark.parametrize("state", ["waiting", "failed", "running"])
def test_a_missing_branch_leaves_the_scale_running(tmp_path, state):
    def late(draft: Draft):
        if draft.variant == "hybrid" and draft.seed == 4:
            at_look(draft, 0.4, state)

    decision = decided(tmp_path, better(), 2, late)
    assert decision.outcomes == {"hybrid": "continue"}
    assert "a pair is missing or has no valid loss" in decision.sentence


def diverges(*seeds: int):
    def edit(draft: Draft):
        if draft.variant == "hybrid" and draft.seed in seeds:
            at_look(draft, 0.4, "diverged")

    return edit


def test_a_diverged_run_stops_nothing_by_itself_and_leaves_its_pair_out(tmp_path):
    decision = decided(tmp_path / "a", better(), 2, diverges(4))
    assert decision.outcomes == {"hybrid": "efficacy"}
    assert "n = 4" in decision.sentence
    few = decided(tmp_path / "b", better(), 2, diverges(1, 2, 3, 4))
    assert few.outcomes == {"hybrid": "continue"}


def test_a_branch_that_scored_nan_is_a_diverged_one(tmp_path):
    def nan(draft: Draft):
        if draft.variant == "hybrid" and draft.seed == 0:
            draft.branches[0.6][0]["loss"] = math.nan

    assert "n = 4" in decided(tmp_path, better(), 2, nan).sentence


def hot(draft: Draft):
    for row in draft.branches[0.6]:
        row["decayed"] = False


def other_code(draft: Draft):
    if draft.variant == "hybrid":
        draft.run["code_hash"] = "f" * 64


def other_examples(draft: Draft):
    if draft.variant == "hybrid" and draft.seed == 0:
        draft.examples["hash"] = "f" * 64


@pytest.mark.parametrize("edit", [hot, other_code, other_examples])
def test_what_would_block_the_verdict_does_not_end_a_scale(tmp_path, edit):
    assert decided(tmp_path, better(), 2, edit).outcomes == {"hybrid": "continue"}


def test_no_treatment_and_wrong_looks(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", recipe(variants={"mha": 1.0}))
    decision = decide_look(sweep, "xs", 1, SHARES)
    assert not decision.stop
    assert "No treatment" in decision.sentence
    for look, shares in (
        (0, SHARES),
        (4, SHARES),
        (1, (0.6, 0.4)),
        (1, (0.4, 0.4)),
        (1, (0.5, 1.0)),
        (1, ()),
    ):
        with pytest.raises(ValueError, match="decide_look: no look"):
            decide_look(sweep, "xs", look, shares)


def test_a_stopped_scale_is_judged_at_its_look(tmp_path):
    comparison = stopped(tmp_path, better(), 0.6)
    (rung,), (ladder,) = comparison.rungs, comparison.ladder
    assert (rung.look, rung.n, rung.paired) == (0.6, 5, True)
    assert set(rung.flags) <= {"SLOPE_LOCAL", "NEGATIVE_CORRELATION", "POOR_FIT"}
    assert rung.delta.level == pytest.approx(1 - alpha_spending(2, 4))
    assert rung.tokens == rung.looks[1].tokens
    assert [look.share for look in rung.looks] == [0.4, 0.6]
    assert rung.decision is Decision.B_BETTER
    assert (ladder.decision, "OPTIONAL_STOPPING" in ladder.flags) == (Decision.B_BETTER, True)
    assert "OPTIONAL_STOPPING" in ladder.k.flags
    assert {state.state for state in comparison.runs} == {"stopped"}
    assert all(state.problem == "" and state.outcome is not None for state in comparison.runs)
    assert comparison.divergence[0].runs == 5


def test_the_interval_of_a_stopped_scale_is_scipys_at_the_level_of_its_look(tmp_path):
    (rung,) = stopped(tmp_path, better(), 0.6).rungs
    d = np.array([pair.delta for pair in rung.pairs])
    wanted = scipy.stats.ttest_1samp(d, 0).confidence_interval(1 - alpha_spending(2, 4))
    assert (rung.delta.low, rung.delta.high) == pytest.approx((wanted.low, wanted.high), rel=1e-10)
    first, second = (cast(float, look.delta.p) for look in rung.looks)
    assert rung.p == pytest.approx(min(1, 16 * first, 16 / 3 * second))
    assert rung.delta.p == second


def test_the_slope_of_a_stopped_scale_comes_from_the_look_before(tmp_path):
    def elsewhere(draft: Draft):
        for row in draft.branches[0.4]:
            row["loss"] += 0.5

    (rung,) = stopped(tmp_path, better(run_sd=1e-5), 0.8, elsewhere).rungs
    assert rung.k.slope == pytest.approx(0.366 * 2085 / rung.tokens**0.366, rel=0.04)
    assert rung.k.k == pytest.approx(1.3, rel=0.03)


def test_the_library_of_full_runs_does_not_serve_a_look(tmp_path):
    from harness.compare.inputs.noise_floor import LibraryEntry, write_library
    from harness.compare.inputs.run_records import read_runs

    sweep = write_sweep(tmp_path / "sweep", better(seeds=(0, 1, 2)), lambda draft: at_look(draft, 0.6))
    run = read_runs(sweep)[0].provenance
    facts = run.facts
    entry = LibraryEntry("xs", 1e-4, 40.0, None, 44, facts.non_embedding, run.tokens, facts.eval_fingerprint)
    write_library(sweep, [entry])
    (rung,) = compare(sweep).rungs
    assert (rung.method, rung.df) == ("paired t", 2)
    assert "VARIANCE_MISMATCH" not in rung.flags


def test_at_the_end_the_looks_before_still_count(tmp_path):
    (rung,) = compare(write_sweep(tmp_path / "sweep", recipe())).rungs
    assert rung.look == 1.0
    assert rung.delta.level == pytest.approx(1 - alpha_spending(4, 4))
    looks = [(i, look.delta) for i, look in enumerate(rung.looks, 1)]
    same_side = [
        (i, cast(float, d.p)) for i, d in looks if cast(float, d.mean) * cast(float, rung.delta.mean) > 0
    ]
    assert rung.p == pytest.approx(min(1.0, *(16 * p / (2 * i - 1) for i, p in same_side)))


def test_equivalence_pays_for_its_look(tmp_path):
    made = recipe(variants={"mha": 1.0, "hybrid": 1.0}, run_sd=2e-4, rng=2)
    k: Any = stopped(tmp_path / "a", made, 0.6).rungs[0].k

    def within(p: float) -> Decision:
        """At the margin that gives the TOST this p."""
        margin = abs(k.log_k) + float(scipy.stats.t.ppf(1 - p, k.df)) * k.log_se
        return stopped(tmp_path / str(p), recipe(**made.__dict__ | {"margin": margin}), 0.6).rungs[0].decision

    assert alpha_spending(2, 4) == pytest.approx(0.009375)
    assert within(0.0093) is Decision.EQUIVALENT
    assert within(0.0095) is Decision.INCONCLUSIVE


def test_the_ladder_needs_its_largest_scale(tmp_path):
    """A small scale is clear and would carry a pooled one; the largest shows nothing by itself."""
    made = better(scales={"xs": 10**7, "s": 3 * 10**7})

    def weak(draft: Draft):
        if draft.scale == "xs":
            return at_look(draft, 0.6)
        if draft.variant == "hybrid":
            for rows in (draft.evals, *draft.branches.values()):
                for row in rows:
                    row["loss"] += 0.09 + 0.05 * (-1) ** draft.seed
        return None

    comparison = compare(write_sweep(tmp_path / "sweep", made, weak))
    small, large = comparison.rungs
    (ladder,) = comparison.ladder
    assert (small.decision, large.decision) == (Decision.B_BETTER, Decision.INCONCLUSIVE)
    assert ladder.largest_scale
    assert ladder.largest_scale.p == large.p
    assert ladder.decision is Decision.INCONCLUSIVE


def test_sequential_p_counts_only_looks_of_the_last_ones_sign():
    down = paired_effects.effect_from_deltas([-0.1, -0.11, -0.1, -0.09, -0.1])
    up = paired_effects.effect_from_deltas([0.01, 0.012, 0.008, -0.005])
    assert sequential_p([down, up], 4) == pytest.approx(min(1.0, up.p * 16 / 3))
    assert sequential_p([down, down], 4) == pytest.approx(down.p * 16 / 3)
    assert sequential_p([down, paired_effects.effect_from_deltas([-0.1])], 4) is None
    assert sequential_p([down], 4) == pytest.approx(min(1.0, down.p * 16))


def test_a_family_needs_more():
    clear = paired_effects.effect_from_deltas([-0.1, -0.11, -0.1, -0.09])
    level = alpha_spending(2, 4)
    assert clear.p
    for family, wanted in (
        (int(0.9 * level / clear.p), "efficacy"),
        (int(1.1 * level / clear.p), "continue"),
    ):
        test = sequential.SequentialTest(looks=4, family=family)
        test.add_look(clear)
        assert test.add_look(clear).value == wanted


@pytest.mark.parametrize("n", [3, 5])
def test_false_positives_of_a_scale_that_may_stop(n):
    found = simulate.stopped_null(700, n)
    assert found.false_positives.within(0.05)
    assert found.intervals.value >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 700)


def test_false_positives_over_treatments_and_scales():
    assert simulate.stopped_family(250).within(0.05)


def test_peeking_without_the_price_would_be_seen():
    """The same sweeps with the p of the look itself."""
    assert not simulate.stopped_null(700, 5, naive=True).false_positives.within(0.05)
