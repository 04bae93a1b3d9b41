"""Validation sets do not decide: the verdict is that of the sweep without them, and they stand beside it."""

from __future__ import annotations

import dataclasses

import pytest

from harness.compare import compare
from harness.compare.results.to_json import to_json
from tests.compare import synthetic
from tests.compare.synthetic import DOMAINS, Draft, Recipe, write_sweep

RECIPE = Recipe(scales={"xs": 10**7, "s": 3 * 10**7}, beside={"gate": {"name": "promote", "quality": 0.01}})


def with_set(draft: Draft) -> None:
    """Evaluate a run on a set of which the treatment knows nothing, and its control all."""
    worse = 3.0 if draft.variant == "hybrid" else -1.0
    for rows in (draft.evals, *draft.branches.values()):
        rows += [
            row | {"domain": "set", "loss": row["loss"] + worse} for row in rows if row["domain"] == "prose"
        ]
    draft.config["rule"]["domains"] = [*DOMAINS]


def without_domains(comparison) -> list:
    return [to_json(dataclasses.replace(rung, domains=())) for rung in comparison.rungs]


@pytest.mark.parametrize("stopping", ["none", "looks"])
def test_a_verdict_with_a_set_is_the_verdict_without(tmp_path, monkeypatch, stopping):
    recipe, make_rule = dataclasses.replace(RECIPE, stopping=stopping), synthetic._rule
    plain = compare(write_sweep(tmp_path / "plain", recipe))
    monkeypatch.setattr(
        synthetic, "_rule", lambda recipe: dataclasses.replace(make_rule(recipe), domains=[*DOMAINS])
    )
    judged = compare(write_sweep(tmp_path / "judged", recipe, with_set))
    assert (judged.verdict, judged.deviations) == (plain.verdict, plain.deviations)
    assert without_domains(judged) == without_domains(plain)
    for name in ("ladder", "gate", "runs", "divergence", "power"):
        assert to_json(getattr(judged, name)) == to_json(getattr(plain, name))
    for rung, plain_rung in zip(judged.rungs, plain.rungs, strict=True):
        assert [row.domain for row in rung.domains] == [*DOMAINS, "set"]
        assert rung.domains[:2] == plain_rung.domains
        assert rung.domains[2].delta.mean == pytest.approx(plain_rung.domains[1].delta.mean + 4.0)


def test_a_set_that_the_rule_names_decides(tmp_path, monkeypatch):
    make_rule = synthetic._rule
    monkeypatch.setattr(
        synthetic, "_rule", lambda recipe: dataclasses.replace(make_rule(recipe), domains=["set"])
    )

    def edit(draft):
        with_set(draft)
        draft.config["rule"]["domains"] = ["set"]

    judged = compare(write_sweep(tmp_path / "sweep", RECIPE, edit))
    assert all(rung.delta.mean == pytest.approx(rung.domains[2].delta.mean) for rung in judged.rungs)
