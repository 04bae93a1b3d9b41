"""The rule as it was written down, what a hand or a later launch changed of it, and what it asks for."""

from __future__ import annotations

import json
from typing import cast

import pytest

from harness.compare import compare
from harness.compare.results.verdict_types import Decision
from tests.compare.judging import ONE, SMALL, judged, only
from tests.compare.synthetic import Recipe, write_sweep


def test_tuning_flags(tmp_path):
    tuning = {"mha": {"points": 5, "seed": 0}, "hybrid": {"points": 3, "edge": True}}
    recipe = Recipe(scales=ONE.scales, with_steps=False, beside={"tuning": tuning})
    flags = set(only(judged(tmp_path, recipe)).flags)
    assert {"UNEQUAL_TUNING", "LR_GRID_EDGE", "SEED_REUSED_FOR_TUNING"} <= flags


def test_a_variant_that_was_tuned_later_stands_in_the_ledger(tmp_path):
    from harness.records.sweep import ledger

    tuning = {"mha": {"points": 5}, "hybrid": 3}
    sweep = write_sweep(
        tmp_path / "sweep", Recipe(scales=ONE.scales, with_steps=False, beside={"tuning": tuning})
    )
    assert "UNEQUAL_TUNING" in only(compare(sweep)).flags
    ledger.append(sweep, "tuning", {"tuning": {"mha": {"points": 7}, "hybrid": {"points": 5}}})
    assert "UNEQUAL_TUNING" not in only(compare(sweep)).flags


def test_deviations(tmp_path):
    from harness.records.sweep import ledger

    sweep = write_sweep(tmp_path / "sweep", ONE)
    rule = json.loads(sweep.rule.read_text())
    rule["rule"]["margin"] = 0.2
    sweep.rule.write_text(json.dumps(rule))
    ledger.append(sweep, "amendment", {"seed": 3})
    kinds = [deviation.kind for deviation in compare(sweep).deviations]
    assert kinds == ["rule_edited", "other_rule", "amendment"]
    lines = sweep.ledger.read_text().replace('"seed": 3', '"seed": 4')
    sweep.ledger.write_text(lines)
    assert "ledger_edited" in [deviation.kind for deviation in compare(sweep).deviations]


BESIDE = {"gate": {"name": "promote", "speed": 0.05}, "tuning": {"mha": {"points": 5}}}


def kinds_after(tmp_path, recipe: Recipe, change, *, keep_hash: bool = True) -> list[str]:
    """Kinds of deviations after a hand has changed rule.json."""
    from harness.core.hashing import hash_json

    sweep = write_sweep(tmp_path / "sweep", recipe)
    assert not compare(sweep).deviations
    content = json.loads(sweep.rule.read_text())
    change(content)
    if not keep_hash:
        content["hash"] = hash_json({key: value for key, value in content.items() if key != "hash"})
    sweep.rule.write_text(json.dumps(content))
    return [deviation.kind for deviation in compare(sweep).deviations]


@pytest.mark.parametrize("keep_hash", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["gate"].update(speed=0.5),
        lambda content: content["tuning"]["mha"].update(points=6),
        lambda content: content["rule"].update(hypothesis="another"),
        lambda content: content.pop("gate"),
        lambda content: content.update(extra=1),
    ],
    ids=["gate", "tuning", "rule", "no gate", "more"],
)
def test_a_hand_edited_rule_is_found(tmp_path, change, keep_hash):
    recipe = Recipe(scales=ONE.scales, with_steps=False, beside=BESIDE)
    assert kinds_after(tmp_path, recipe, change, keep_hash=keep_hash) == ["rule_edited"]


def test_a_gate_that_is_added_by_hand_is_found(tmp_path):
    assert kinds_after(tmp_path, ONE, lambda content: content.update(gate={})) == ["rule_edited"]


def test_older_rules_are_hashed_without_their_frame(tmp_path):
    from harness.core.hashing import hash_json
    from harness.records.sweep import ledger

    sweep = write_sweep(tmp_path / "sweep", ONE)
    rule = json.loads(sweep.rule.read_text())["rule"]
    for content in ({"rule": rule, "hash": hash_json(rule)}, rule):
        sweep.rule.write_text(json.dumps(content))
        sweep.ledger.unlink()
        ledger.append(sweep, "rule", {"hash": hash_json(rule)})
        assert not compare(sweep).deviations
    sweep.rule.write_text(json.dumps({"rule": rule, "hash": hash_json(rule), "gate": {}}))
    assert [deviation.kind for deviation in compare(sweep).deviations] == ["rule_edited"]


def test_positive_control_and_family(tmp_path):
    recipe = Recipe(
        scales=SMALL.scales, variants={"mha": 1.0, "hybrid": 1.0, "short": 0.7}, positive_control="short",
        with_steps=False,
    )  # fmt: skip
    comparison = judged(tmp_path, recipe)
    by_name = {ladder.variant: ladder for ladder in comparison.ladder}
    assert by_name["short"].positive_control
    assert by_name["short"].decision is Decision.A_BETTER
    assert by_name["hybrid"].decision is not Decision.B_BETTER
    assert all(cast(float, rung.p_holm) >= cast(float, rung.p) for rung in comparison.rungs)
