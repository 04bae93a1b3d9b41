"""Unequal blocks: pairs are judged, runs without a sibling are shown, images are never pooled with text."""

from __future__ import annotations

import json

import pytest

from harness.compare import compare, dumps
from harness.compare.results.verdict_types import Decision
from harness.core import atomic_files
from tests.compare.synthetic import Draft, Recipe, write_sweep
from tests.compare.unequal import PLACED, SCALES, UNIT, unequal

ONE_SEED = "one seed: the difference cannot be told apart from seed noise"


def test_pairs_are_judged_and_singles_are_runs(tmp_path):
    comparison = compare(unequal(tmp_path / "sweep"))
    assert [(rung.scale, rung.variant, rung.n) for rung in comparison.rungs] == [
        ("1t", "hybrid", 1), ("1p5t", "hybrid", 1),
    ]  # fmt: skip
    assert [ladder.variant for ladder in comparison.ladder] == ["hybrid"]
    assert comparison.ladder[0].scales == ("1t", "1p5t")
    assert [run.scale for run in comparison.runs] == ["image", "1t", "1t", "1p5t", "1p5t", "6t", "10t"]
    assert all(run.state == "finished" and run.outcome for run in comparison.runs), "nothing is missing"
    assert {run.scale: run.unit for run in comparison.runs}["image"] == UNIT
    assert comparison.loss_unit == "nats a token"
    rows = [(row.scale, row.variant) for row in comparison.fairness]
    assert sorted(rows) == sorted(tuple(name.split("/")[:2]) for name in PLACED)
    assert comparison.notes == (
        "Not compared (no other variant in nats a token at the same scale): "
        "mha at 10t, mha at 6t, dit at image.",
    )


def test_one_seed_is_said_in_words_wherever_the_verdict_is(tmp_path):
    comparison = compare(unequal(tmp_path / "sweep"))
    for rung in comparison.rungs:
        assert (rung.delta.low, rung.delta.p, rung.p_holm) == (None, None, None)
        assert rung.delta.mean is not None
        assert rung.k.low is None
        assert rung.decision is Decision.INVALID
        assert ONE_SEED in rung.reason
    (ladder,) = comparison.ladder
    assert ladder.decision is Decision.INVALID
    assert ONE_SEED in ladder.reason
    assert ONE_SEED in comparison.verdict
    assert ONE_SEED in json.loads(dumps(comparison))["verdict"]
    assert (ladder.k, ladder.bet, ladder.trend, ladder.projection) == (None,) * 4
    assert "smaller scales" in ladder.settle


def test_a_roster_of_one_seed_is_never_promoted(tmp_path):
    sweep = unequal(tmp_path / "sweep", beside={"gate": {"name": "promote"}}, with_steps=True)
    timed = {name: {"step_seconds": s, "peak_bytes": 10.0} for name, s in (("mha", 2.0), ("hybrid", 1.0))}
    atomic_files.write_json(sweep.timing, {"scale": "1p5t", "variants": timed})
    gates = compare(sweep).gate
    assert gates is not None
    (gate,) = gates
    assert gate.won >= 3, "but for its one seed it would pass"
    assert not gate.promote
    assert gate.reason == "the comparison itself is invalid"


SEEDED = tuple(f"{name[:-1]}{seed}" for name in PLACED for seed in range(3))


def test_what_has_no_sibling_changes_no_number_of_a_pair(tmp_path):
    pairs = tuple(name for name in SEEDED if name.split("/")[0] in ("1t", "1p5t"))
    with_them = compare(unequal(tmp_path / "all", SEEDED, seeds=(0, 1, 2)))
    alone = compare(unequal(tmp_path / "pairs", pairs, seeds=(0, 1, 2)))
    assert with_them.rungs == alone.rungs
    assert with_them.ladder == alone.ladder
    assert with_them.ladder[0].k.n == 6


def test_a_pair_of_images_is_not_pooled_with_pairs_of_text(tmp_path):
    """Even where both have the control: its losses there are of another unit."""
    placed = (*SEEDED, *(f"image/{name}/seed{seed}" for name in ("mha", "hybrid") for seed in range(3)))
    comparison = compare(unequal(tmp_path / "sweep", placed, seeds=(0, 1, 2)))
    assert [rung.scale for rung in comparison.rungs] == ["1t", "1p5t"]
    assert comparison.ladder[0].scales == ("1t", "1p5t")
    assert "hybrid at image" in comparison.notes[-1]


def test_a_sweep_of_images_alone_is_compared(tmp_path):
    placed = tuple(f"image/{name}/seed{seed}" for name in ("mha", "hybrid") for seed in range(3))
    comparison = compare(unequal(tmp_path / "sweep", placed, seeds=(0, 1, 2)))
    assert [rung.scale for rung in comparison.rungs] == ["image"]
    assert comparison.loss_unit == UNIT


@pytest.mark.parametrize("gone", ["1t/hybrid/seed0", "10t/mha/seed0"])
def test_what_the_ledger_has_a_place_for_is_missed(tmp_path, gone):
    def drop(draft: Draft) -> bool:
        return f"{draft.scale}/{draft.variant}/seed{draft.seed}" != gone

    comparison = compare(unequal(tmp_path / "sweep", edit=drop))
    assert [run.path for run in comparison.runs if run.state == "missing"] == [gone]
    if gone == "1t/hybrid/seed0":
        assert "INCOMPLETE" in next(rung for rung in comparison.rungs if rung.scale == "1t").flags


def test_without_a_ledger_every_variant_belongs_to_every_scale(tmp_path):
    def drop(draft: Draft) -> bool:
        return (draft.scale, draft.variant) != ("s", "hybrid")

    recipe = Recipe(scales={"xs": SCALES["1t"], "s": SCALES["6t"]}, seeds=(0, 1), with_steps=False)
    comparison = compare(write_sweep(tmp_path / "sweep", recipe, drop))
    assert [run.path for run in comparison.runs if run.state == "missing"] == [
        "s/hybrid/seed0", "s/hybrid/seed1",
    ]  # fmt: skip
    assert [rung.scale for rung in comparison.rungs] == ["xs", "s"]


@pytest.mark.parametrize("content", [[], {"runs": ["1t"]}, {"runs": {"odd": 1, "a/b/seedx": 2}}])
def test_a_ledger_with_nonsense_in_it_names_nobody(tmp_path, content):
    from harness.compare.inputs.expected_runs import runs_in_ledger
    from harness.records.paths import SweepDir
    from harness.records.sweep import ledger

    ledger.append(sweep := SweepDir(tmp_path / "sweep"), "placement", content)
    assert runs_in_ledger(sweep) == frozenset()
