"""Public logs whose right answers are known: what is said of them, and what is never said."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision

CURVES = Path(__file__).parents[3] / "shared" / "curves"
DIRECTIONS = (Decision.A_BETTER, Decision.B_BETTER)

pytestmark = pytest.mark.skipif(not CURVES.is_dir(), reason="../shared/curves is not beside this checkout")


def judged(name: str, **options):
    return compare_curves([CURVES / f"{name}.csv"], **options)


NEVER = [
    "varlen_combined", "mudd_cut_hot", "mudd_control_short", "mudd_control_perplexity", "algoperf_nadamp",
    "algoperf_schedulefree", "algoperf_diverged", "pythia_lambada", "openlm_paloma_c4_en",
    "wsd_vs_cosine_owt2", "gemstones_hot_cooler", "mudd_1430", "xsa_1410",
]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_no_direction_without_proof(name):
    assert all(ladder.decision not in DIRECTIONS for ladder in judged(name).ladder)


STILL_NEVER = [name for name in NEVER if name not in ("mudd_1430", "xsa_1410", "mudd_cut_hot")]


@pytest.mark.parametrize("name", STILL_NEVER)
def test_no_direction_even_where_the_ends_are_vouched_for(name):
    assert all(ladder.decision not in DIRECTIONS for ladder in judged(name, decayed="last").ladder)


@pytest.mark.parametrize(
    ("name", "mean", "low", "high"),
    [("mudd_1430", -0.0084, -0.0098, -0.0070), ("xsa_1410", -0.0045, -0.0054, -0.0036)],
)
def test_vouched_ends_give_the_known_difference(name, mean, low, high):
    comparison = judged(name, decayed="last")
    assert comparison.ladder[0].decision is Decision.B_BETTER
    delta = comparison.rungs[0].delta
    assert (delta.mean, delta.low, delta.high) == pytest.approx((mean, low, high), abs=6e-5)
    assert not comparison.rungs[0].paired


def test_what_is_wrong_is_named():
    assert "UNEQUAL_TOKENS" in judged("mudd_control_short").rungs[0].flags
    perplexity = judged("mudd_control_perplexity")
    assert "UNIT_MISMATCH" in perplexity.rungs[0].flags
    assert any("as a perplexity does" in note for note in perplexity.notes)
    assert "DECAY_UNVERIFIED" in judged("mudd_1430").rungs[0].flags
    assert {"UNEQUAL_TOKENS", "DIVERGED"} <= {*judged("algoperf_diverged").rungs[0].flags}
    assert "scales" not in judged("algoperf_nadamp").ladder[0].reason


@pytest.mark.parametrize(
    ("name", "mean", "decision"),
    [("pgolf_gated", -0.0035, Decision.INCONCLUSIVE), ("pgolf_muon097", -0.0074, Decision.B_BETTER)],
)
def test_records_under_a_wall_clock_cap_are_judged_at_equal_seconds(name, mean, decision):
    comparison = judged(name, decayed="last", match="seconds")
    (rung,) = comparison.rungs
    assert rung.delta.mean == pytest.approx(mean, abs=5e-5)
    assert comparison.ladder[0].decision is decision
    assert "OTHER_TOKENS" in rung.flags
    assert not {"UNEQUAL_TOKENS", "HOT_LR_LOOK", "UNMATCHED"}.intersection(rung.flags)
    assert any("you vouch (--match seconds)" in note for note in comparison.notes)
    assert comparison.ladder[0].decision is not judged(name, decayed="last").ladder[0].decision
    assert all(ladder.decision not in DIRECTIONS for ladder in judged(name, match="seconds").ladder)
