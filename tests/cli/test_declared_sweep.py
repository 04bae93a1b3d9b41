"""A declared question through a real sweep: batches over one stream. An undeclared one trains nothing."""

from __future__ import annotations

import json

import pytest

from tests.cli.support import run

TINY = (
    *("data=pack", "data.tokenizer=byte", "data.sequence_length=32", "evaluation.tokens=256"),
    *("evaluation.points=2", "scale.parameters=12000", "scale.tokens=7744", "model.head_width=16"),
    *("checkpoint.every=50", "seed=0,1", "experiment_name=batch"),
)
"""60 steps of 4 sequences, or 30 of 8; a budget that no batch divides."""


@pytest.mark.slow
def test_batches_are_compared_over_one_proven_stream(tmp_path):
    status, output, errors = run("sweep", "scale.batch=4,8", *TINY, folder=tmp_path)
    assert status == 0, errors
    assert "what would settle" in output.lower()
    sweep = tmp_path / "runs" / "batch"
    _, text, _ = run("compare", str(sweep), "--json", folder=tmp_path)
    (rung,) = json.loads(text)["rungs"]
    assert rung["paired"]
    assert rung["decision"] != "INVALID"
    assert not {"ORDER_UNVERIFIED", "DATA_ORDER_MISMATCH", "UNEQUAL_TOKENS"}.intersection(rung["flags"])
    for seed in ("seed0", "seed1"):
        records = [
            json.loads((sweep / "xs" / variant / seed / "examples.json").read_text())
            for variant in ("batch_4", "batch_8")
        ]
        assert [record["steps"] for record in records] == [60, 30]
        assert records[0]["stream"]["digest"] == records[1]["stream"]["digest"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+variant=mha,short", "schedule=constant"], "schedule.name=constant"),
        (["data.tokenizer=byte,bpe512"], "data.tokenizer ('bpe512' against 'byte')"),
        (["data.sequence_length=32,64"], "data.sequence_length (64 against 32)"),
    ],
)
def test_what_would_be_invalid_is_refused_before_the_first_step(tmp_path, overrides, words):
    keys = {override.partition("=")[0] for override in overrides}
    others = [value for value in TINY if value.partition("=")[0] not in keys]
    overrides = [value.removeprefix("+") for value in overrides]
    status, _, errors = run("sweep", *overrides, *others, folder=tmp_path)
    assert status != 0
    assert words in errors
    assert "the verdict could not compare" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("runs/batch/*"))
