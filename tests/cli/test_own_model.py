"""Models of no relation to ours, each compared as A against B by the command, in processes of its own."""

from __future__ import annotations

import json

import pytest

from tests.cli.support import run

TEXT = ("scale.tokens=7_680", "evaluation.tokens=256")
MODELS = {
    "test_mixer": ("data=digits", "data.label_dropout=0", "scale.tokens=15_680", "evaluation.tokens=1568"),
    "test_rnn": ("data=pack", "data.tokenizer=byte", "data.sequence_length=32", *TEXT),
    "test_linen": ("data=pack", "data.tokenizer=byte", "data.sequence_length=32", *TEXT),
}
"""Model and the overrides of its data: 20 or 30 steps."""
VARIANT = (
    "# @package _global_\nvariant: {name: w%d, touches: [model.options]}\nmodel: {options: {width: %d}}\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_ones_own_is_compared_end_to_end(kind, tmp_path):
    """Four runs in worker processes, a verdict, and a replay."""
    (tmp_path / "ideas" / "variant").mkdir(parents=True)
    for width in (8, 16):
        (tmp_path / "ideas" / "variant" / f"w{width}.yaml").write_text(VARIANT % (width, width))
    arguments = (
        *("variant=w8,w16", "seed=0,1", f"model.kind={kind}", "scale.batch=8", "experiment_name=own"),
        *("rule.control=w8", "rule.positive_control=null", "hydra.searchpath=[file://ideas]"),
        *("imports=[tests.models.own_models]", "evaluation.points=2", *MODELS[kind]),
    )
    status, output, errors = run("sweep", "-m", *arguments, folder=tmp_path, seconds=900)
    assert status == 0, errors
    assert "w16 against w8" in output
    _, text, _ = run("compare", "runs/own", "--json", folder=tmp_path)
    (rung,) = json.loads(text)["rungs"]
    assert rung["paired"]
    assert rung["decision"] != "INVALID"
    (where,) = tmp_path.glob("runs/own/*/w16/seed1")
    status, output, errors = run("verify", str(where), "--trust", folder=tmp_path)
    assert status == 0, errors
    assert "bitwise equal" in output
