"""compare() over sweeps on disk: sound ones, and those whose runs were not given the same."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from typing import cast

import numpy as np
import pytest

from harness.compare import compare, dumps
from harness.compare.results.verdict_types import Decision
from harness.records.paths import SweepDir
from tests.compare.judging import ONE, SMALL, is_treatment, judged, only
from tests.compare.synthetic import Recipe, write_sweep


def test_sound_sweep_finds_the_truth(tmp_path):
    comparison = judged(tmp_path, Recipe(with_steps=False, seeds=(0, 1, 2, 3, 4)))
    (ladder,) = comparison.ladder
    assert ladder.decision is Decision.B_BETTER
    assert ladder.k.low is not None
    assert ladder.k.high is not None
    assert ladder.k.low < 1.05 < ladder.k.high
    assert ladder.k.n == 15
    assert [rung.scale for rung in comparison.rungs] == ["xs", "s", "m"]
    assert all(rung.paired and rung.n == 5 and rung.look == 1.0 for rung in comparison.rungs)
    assert set(comparison.flags) <= {"SLOPE_LOCAL", "NEGATIVE_CORRELATION", "OUTLIER_SEED"}
    assert not comparison.deviations
    assert all(state.problem == "" for state in comparison.runs)
    assert "B_BETTER" in comparison.verdict
    assert ladder.settle == ""
    assert ladder.largest_scale
    assert (ladder.largest_scale.scale, ladder.largest_scale.delta) == ("m", comparison.rungs[-1].delta)


def test_json_is_stable_and_complete(tmp_path):
    sweep = write_sweep(tmp_path / "one", SMALL)
    shutil.copytree(sweep.path, tmp_path / "two")
    first, second = compare(sweep), compare(tmp_path / "two")
    assert dumps(first, times=False) == dumps(second, times=False)
    content = json.loads(dumps(first))
    wanted = {"fairness", "rungs", "ladder", "gate", "deviations", "runs", "divergence", "verdict", "times"}
    assert wanted <= content.keys()
    assert {"scale", "variant", "n", "delta", "k", "flags", "decision"} <= content["rungs"][0].keys()
    assert content["rungs"][0]["k"]["estimand"] == "k_tokens"
    assert content["rungs"][0]["delta"]["estimand"] == "population"


def test_one_seed_has_no_interval_and_no_verdict(tmp_path):
    comparison = judged(
        tmp_path, Recipe(scales=SMALL.scales, seeds=(0,), variants={"mha": 1.0, "hybrid": 2.0})
    )
    for rung in comparison.rungs:
        assert (rung.delta.p, rung.delta.low, rung.delta.high, rung.p_holm) == (None,) * 4
        assert rung.delta.mean is not None
        assert rung.delta.estimand.value == "trajectory_only"
        assert rung.k.low is None
        assert rung.decision is Decision.INVALID
        assert "NO_SEED_REPLICATION" in rung.flags
    assert comparison.ladder[0].decision is Decision.INVALID


def other_hash(draft):
    if is_treatment(draft, 0):
        draft.examples["hash"] = "f" * 64


def other_code(draft):
    if is_treatment(draft, 1):
        draft.run["code_hash"] = "f" * 64


def fewer_tokens(draft):
    if is_treatment(draft):
        for row in draft.evals:
            row["tokens"] = int(row["tokens"] * 0.99)


def smaller_budget(draft):
    if is_treatment(draft):
        draft.run["tokens"] -= 1


def other_schedule(draft):
    if is_treatment(draft):
        draft.config["schedule"]["name"] = "cosine"


def declared_schedule(draft):
    other_schedule(draft)
    if is_treatment(draft):
        draft.run["touches"] = ["schedule.name"]


def other_horizon(draft):
    if is_treatment(draft):
        draft.facts["steps"] = 2 * draft.facts["steps"]


def never_decayed(draft):
    for row in draft.evals:
        row["decayed"] = False


def other_evaluation(draft):
    if is_treatment(draft):
        draft.facts["eval_fingerprint"] = "f" * 64


def other_domains(draft):
    if is_treatment(draft):
        draft.evals = [row for row in draft.evals if row["domain"] == "prose"]


def not_a_number(draft):
    if is_treatment(draft, 2):
        draft.status["state"] = "diverged"
        draft.evals[-1]["loss"] = math.nan


def infinite(draft):
    if is_treatment(draft, 2):
        draft.evals[-1]["loss"] = math.inf


def moved(draft):
    if is_treatment(draft, 0):
        draft.run["seed"] = 7


def contradicting(draft):
    if is_treatment(draft, 0):
        draft.config["data_seed"] = 99


@pytest.mark.parametrize(
    ("edit", "flag"),
    [
        (other_hash, "DATA_ORDER_MISMATCH"),
        (other_code, "MIXED_CODE"),
        (fewer_tokens, "UNEQUAL_TOKENS"),
        (smaller_budget, "UNEQUAL_TOKENS"),
        (other_schedule, "SCHEDULE_MISMATCH"),
        (other_horizon, "SCHEDULE_MISMATCH"),
        (never_decayed, "HOT_LR_LOOK"),
        (other_evaluation, "EVAL_SET_MISMATCH"),
        (other_domains, "EVAL_SET_MISMATCH"),
        (not_a_number, "DIVERGED"),
        (infinite, "DIVERGED"),
        (moved, "HAND_EDITED"),
        (contradicting, "HAND_EDITED"),
    ],
)
def test_blocking_flags(tmp_path, edit, flag):
    comparison = judged(tmp_path, ONE, edit)
    assert flag in only(comparison).flags
    assert only(comparison).decision is Decision.INVALID
    assert comparison.ladder[0].decision is Decision.INVALID
    assert flag in comparison.ladder[0].reason


def test_a_declared_question_about_the_schedule_is_judged(tmp_path):
    rung = only(judged(tmp_path, ONE, declared_schedule))
    assert "SCHEDULE_MISMATCH" not in rung.flags
    assert rung.decision is not Decision.INVALID


def test_runs_that_went_on_under_other_code(tmp_path):
    def drifted(draft):
        draft.run["code_hash"] = "a@8+b"

    assert "MIXED_CODE" in only(judged(tmp_path, ONE, drifted)).flags


def test_configs_that_differ_in_their_seeds_are_parsed_once(tmp_path, monkeypatch):
    from harness.compare.inputs import run_records

    parsed = []
    real = run_records.with_new_names
    monkeypatch.setattr(run_records, "with_new_names", lambda node: parsed.append(node) or real(node))
    compare(write_sweep(tmp_path / "sweep", ONE))
    assert len(parsed) == 2


def test_sound_sweep_has_none_of_those_flags(tmp_path):
    rung = only(judged(tmp_path))
    assert set(rung.flags) <= {"SLOPE_LOCAL", "LOW_DF", "NEGATIVE_CORRELATION"}


def test_other_hash_is_called_unpaired(tmp_path):
    rung = only(judged(tmp_path, ONE, other_hash))
    assert not rung.paired
    assert rung.method == "Welch (unpaired)"


def test_declared_data_mix_keeps_its_pairing(tmp_path):
    def edit(draft):
        other_hash(draft)
        draft.run["touches"] = ["data.sources"]

    rung = only(judged(tmp_path, ONE, edit))
    assert rung.paired
    assert "DATA_ORDER_MISMATCH" not in rung.flags


def test_warnings_of_unequal_resources(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            draft.facts["parameters"] *= 2
            draft.facts["flops_per_token"] *= 1.1

    comparison = judged(tmp_path, ONE, edit)
    rung = only(comparison)
    assert {"UNEQUAL_PARAMS", "UNEQUAL_FLOPS"} <= set(rung.flags)
    assert rung.decision is Decision.B_BETTER
    assert rung.k.k_per_flop == pytest.approx(rung.k.k / 1.1)
    assert comparison.ladder[0].k.k_per_flop == pytest.approx(comparison.ladder[0].k.k / 1.1)


def test_schedule_flip(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            for row in draft.evals:
                row["loss"] += 0.0 if row["decayed"] else 0.2

    rung = only(judged(tmp_path, ONE, edit))
    assert "SCHEDULE_FLIP" in rung.flags
    assert rung.decision is Decision.B_BETTER


def test_outlier_is_flagged_shown_without_and_kept(tmp_path):
    def edit(draft):
        if is_treatment(draft, 3):
            for row in draft.evals:
                row["loss"] += 0.03

    rung = only(judged(tmp_path, Recipe(scales=ONE.scales, seeds=tuple(range(8)), with_steps=False), edit))
    assert "OUTLIER_SEED" in rung.flags
    assert rung.n == 8
    assert rung.without_outliers.n == 7
    assert rung.without_outliers.se < rung.delta.se / 3


def test_control_seeds_that_nobody_matches_are_unpaired(tmp_path):
    comparison = judged(
        tmp_path,
        Recipe(scales=ONE.scales, seeds=tuple(range(8)), with_steps=False),
        lambda d: (d.seed < 4) == (d.variant == "mha"),
    )
    rung = only(comparison)
    assert rung.method == "Welch (unpaired)"
    assert not rung.paired
    assert rung.sign_flip is None


def test_worse_in_every_seed_is_an_effect_not_a_divergence(tmp_path):
    comparison = judged(
        tmp_path, Recipe(scales=SMALL.scales, variants={"mha": 1.0, "short": 0.7}, with_steps=False)
    )
    assert "DIVERGED" not in comparison.flags
    assert comparison.divergence[0].diverged == 0


def test_one_spike_is_a_divergence(tmp_path):
    def edit(draft):
        if is_treatment(draft, 4):
            for row in draft.evals:
                row["loss"] += 3.0

    recipe = Recipe(scales=ONE.scales, seeds=tuple(range(8)), with_steps=False)
    comparison = judged(tmp_path, recipe, edit)
    assert "DIVERGED" in only(comparison).flags
    assert comparison.divergence[0].diverged == 1
    assert comparison.divergence[0].runs == 8
    assert comparison.divergence[0].p == pytest.approx(1.0)


def test_seeds_that_spread_together_have_not_diverged(tmp_path):
    """Another seed reads in another order: both runs of a pair move, far beyond what separates them."""
    recipe = Recipe(run_sd=0.05, correlation=0.999, seeds=(0, 1, 2))
    comparison = compare(write_sweep(tmp_path / "sweep", recipe))
    assert "DIVERGED" not in comparison.flags


def test_four_scales_without_branches_use_the_ladder(tmp_path):
    scales = {"a": 10**7, "b": 4 * 10**7, "c": 16 * 10**7, "d": 64 * 10**7}
    comparison = judged(tmp_path, Recipe(scales=scales, branches=(), with_steps=False, seeds=(0, 1, 2, 3)))
    assert {rung.k.estimand.value for rung in comparison.rungs} == {"k_compute"}
    (ladder,) = comparison.ladder
    assert ladder.decision is Decision.B_BETTER
    assert ladder.k_compute is None


def test_no_slope_at_all_gives_a_direction_without_a_multiplier(tmp_path):
    comparison = judged(
        tmp_path, Recipe(scales=SMALL.scales, branches=(), with_steps=False, seeds=(0, 1, 2, 3))
    )
    (ladder,) = comparison.ladder
    assert ladder.k is None
    assert "NO_SLOPE" in ladder.flags
    assert ladder.decision is Decision.B_BETTER


def test_data_library_beside_the_sweep_is_used(tmp_path):
    from harness.compare.inputs.noise_floor import library_entries, write_library
    from harness.compare.inputs.run_records import read_runs

    null = Recipe("null", ONE.scales, {"mha": 1.0}, seeds=tuple(range(16)), null_orders=4, with_steps=False)
    aa = write_sweep(tmp_path / "null", null)
    entries = library_entries(read_runs(aa))
    assert [entry.df for entry in entries] == [12]
    write_library(aa, entries)
    rung = only(compare(write_sweep(tmp_path / "sweep", ONE)))
    assert rung.method == "moderated t"
    assert rung.df == 14
    assert "LOW_DF" not in rung.flags


def test_looks_are_shown_and_under_stopping_they_decide(tmp_path):
    recipe = Recipe(scales=ONE.scales, branches=(0.4, 0.6, 0.8), seeds=(0, 1, 2, 3, 4), with_steps=False)
    shown = only(judged(tmp_path / "a", recipe)).looks
    assert [look.share for look in shown] == [0.4, 0.6, 0.8, 1.0]
    assert {look.outcome for look in shown} == {"shown"}
    stopping = dataclasses.replace(recipe, stopping="looks", variants={"mha": 1.0, "hybrid": 1.5})
    looks = only(judged(tmp_path / "b", stopping)).looks
    assert looks[0].outcome == "continue"
    assert looks[1].outcome == "efficacy"
    assert sum(cast(float, look.alpha) for look in looks) == pytest.approx(0.05)


def test_swapping_control_and_treatment_flips_the_signs_exactly(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", SMALL)
    forward = compare(sweep)
    rule = json.loads(sweep.rule.read_text())
    rule["rule"]["control"] = "hybrid"
    sweep.rule.write_text(json.dumps({"rule": rule["rule"]}))
    sweep.ledger.unlink()
    backward = compare(sweep)
    for one, other in zip(forward.rungs, backward.rungs, strict=True):
        assert one.delta.mean == -other.delta.mean
        assert (one.delta.low, one.delta.high) == (-other.delta.high, -other.delta.low)
        assert one.p == other.p
    assert {forward.ladder[0].decision, backward.ladder[0].decision} == {Decision.B_BETTER, Decision.A_BETTER}


def test_five_percent_more_tokens_relabelled(tmp_path):
    """B := A with 5 % more tokens under A's label: ln 1.05 lies inside the interval of the largest scale."""
    recipe = Recipe(variants={"mha": 1.0, "hybrid": 1.05}, seeds=tuple(range(5)), with_steps=False, rng=11)
    (ladder,) = judged(tmp_path, recipe).ladder
    assert ladder.largest_scale
    assert ladder.largest_scale.k.log_low is not None
    assert ladder.largest_scale.k.log_high is not None
    assert ladder.largest_scale.k.log_low < math.log(1.05) < ladder.largest_scale.k.log_high
    assert ladder.largest_scale.k.log_high - ladder.largest_scale.k.log_low < 0.02


def test_one_percent_fewer_tokens_is_found_at_the_slopes_size(tmp_path):
    recipe = Recipe(variants={"mha": 1.0, "hybrid": 0.99}, seeds=tuple(range(8)), with_steps=False, rng=5)
    (ladder,) = judged(tmp_path, recipe).ladder
    assert ladder.decision is Decision.A_BETTER
    assert ladder.k.log_high < 0
    assert ladder.k.log_se is not None
    assert abs(ladder.k.log_k - math.log(0.99)) < 4 * ladder.k.log_se


def test_import_is_light():
    import subprocess
    import sys

    code = (
        "import sys, harness.compare; "
        "print([m for m in ('jax', 'scipy.stats', 'scipy.optimize', 'altair', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_steps_tables_are_not_needed(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales=ONE.scales))
    before = dumps(compare(sweep), times=False)
    for part in sweep.path.glob("*/*/seed*/metrics/steps-*"):
        part.unlink()
    assert dumps(compare(SweepDir(sweep.path)), times=False) == before


def test_numbers_are_those_of_the_files(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", ONE)
    rung = only(compare(sweep))
    assert rung.delta.mean == pytest.approx(np.mean([p.treatment - p.control for p in rung.pairs]), abs=1e-15)
    assert [pair.seed for pair in rung.pairs] == [0, 1, 2]
    assert {domain.domain for domain in rung.domains} == {"code", "prose"}
