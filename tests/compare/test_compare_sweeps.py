"""Variants of one sweep against a control of another: the same pairs, and every check."""

from __future__ import annotations

import json

import pytest

from harness import cli
from harness.compare import compare
from harness.compare.compare_sweeps import compare_with_control_of
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError
from tests.compare.synthetic import Recipe, write_sweep


def two_sweeps(folder, edit=None):
    """The control in one sweep, the treatment in another: the runs of one whole sweep."""
    old = write_sweep(folder / "old", edit=lambda draft: draft.variant == "mha")
    new = write_sweep(folder / "new", edit=edit or (lambda draft: draft.variant == "hybrid"))
    return old, new


def test_the_pairs_are_those_of_one_sweep(tmp_path):
    old, new = two_sweeps(tmp_path)
    whole = compare(write_sweep(tmp_path / "whole"))
    comparison = compare_with_control_of(new, old)
    assert [rung.delta for rung in comparison.rungs] == [rung.delta for rung in whole.rungs]
    assert [rung.paired for rung in comparison.rungs] == [True] * 3
    assert comparison.ladder[0].decision is whole.ladder[0].decision is Decision.B_BETTER
    assert comparison.rungs[0].control == "mha of old"
    assert any("which the rule of this one did not name" in item.detail for item in comparison.deviations)


def test_an_own_control_is_a_treatment_unless_it_is_the_same(tmp_path):
    old, new = two_sweeps(tmp_path, edit=bool)
    assert {rung.variant for rung in compare_with_control_of(new, old).rungs} == {"hybrid"}
    swapped = compare_with_control_of(new, new, "hybrid")
    assert {rung.variant for rung in swapped.rungs} == {"mha"}
    mirrored = [rung.delta.mean for rung in compare(new).rungs]
    assert [-rung.delta.mean for rung in swapped.rungs] == pytest.approx(mirrored)


def test_other_code_is_no_comparison(tmp_path):
    def changed(draft):
        draft.run["code_hash"] = "f" * 64
        return draft.variant == "hybrid"

    old, new = two_sweeps(tmp_path, changed)
    comparison = compare_with_control_of(new, old)
    assert all("MIXED_CODE" in rung.flags for rung in comparison.rungs)
    assert comparison.ladder[0].decision is Decision.INVALID


def test_what_is_not_there_is_one_sentence(tmp_path):
    old, new = two_sweeps(tmp_path)
    with pytest.raises(UserError, match="has no runs of 'mhaa'; did you mean 'mha'"):
        compare_with_control_of(new, old, "mhaa")
    other = write_sweep(tmp_path / "other", Recipe(scales={"xl": 10**9}))
    with pytest.raises(UserError, match="none is in both"):
        compare_with_control_of(new, other)


def test_the_command_takes_a_control_of_another_sweep(tmp_path, capsys):
    old, new = two_sweeps(tmp_path)
    words = ["compare", str(new.path), "--control-from", str(old.path), "--control", "mha"]
    assert cli.main([*words, "--json"]) == 0
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert {(rung["variant"], rung["control"]) for rung in rungs} == {("hybrid", "mha of old")}
    assert cli.main(["compare", "--curves", "x.csv", "--control-from", str(old.path)]) == 2
    assert "--control-from goes with a sweep" in capsys.readouterr().err
    assert cli.main([*words, "--html"]) == 2
