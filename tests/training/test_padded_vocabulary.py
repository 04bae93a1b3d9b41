"""A checkpoint with other rows past the vocabulary, or from before there were any, is what it was."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from harness.config.compose import compose
from harness.inspection.diff.diff_checkpoints import diff
from harness.records.paths import RunDir
from harness.records.run.provenance import read_provenance
from harness.training.parent_checkpoint import rebuild_model
from harness.training.parent_weights import load_parent_weights
from tests.inspection.saved import at_start
from tests.training.runs import TINY, assignment, init_params, lane, prepare

SHAPE = ("model.width=16", "model.layers=1", "model.heads=2", "model.ffn=24", "model.tie_embeddings=false")
BYTES = 257
"""Vocabulary of the byte tokenizer; 384 rows by default."""


@pytest.fixture(scope="module", params=[1, pytest.param(128, marks=pytest.mark.slow)])
def saved(request, tmp_path_factory) -> RunDir:
    """A run at its start, padded or not."""
    return at_start(tmp_path_factory.mktemp("saved"), *SHAPE, f"model.vocabulary_multiple={request.param}")


def child(parent: RunDir, folder: Path, *overrides: str) -> RunDir:
    text = parent.path.parents[3] / "text.txt"
    return prepare(
        folder, *SHAPE, "finetune.method=full", f"finetune.parent={parent.path}@0",
        f"data.sources.own.path={text}", "seed=9", *overrides,
    )  # fmt: skip


def test_a_run_takes_its_parent_whatever_the_padding_of_either(saved, tmp_path):
    """Over two devices that hold one half of the rows each; the vocabulary alone does not divide by them."""
    run = child(saved, tmp_path, "mesh.tensor=2", "model.vocabulary_multiple=90")
    base = assignment(run).provenance.facts.base
    assert base
    weights = jax.device_get(load_parent_weights(base, lane(run)))
    before = init_params(lane(saved).trainable_model, 0)
    for path, array in weights.items():
        rows = min(len(array), len(before[path]))
        assert array[:rows].tobytes() == before[path][:rows].tobytes(), path
        assert not array[rows:].any()
    assert len(weights["embedding"]) == len(weights["head"]) == 270


def test_a_run_from_before_the_key_keeps_its_rows(tmp_path):
    run = prepare(tmp_path, *SHAPE, "model.vocabulary_multiple=1")
    provenance = read_provenance(run)
    assert provenance
    config = compose(["data=own", "data.sources.own.path=x", *TINY, *SHAPE])
    assert config.model.vocabulary_multiple == 128
    model = rebuild_model(config, provenance.facts)
    assert model.param_specs["embedding"].shape == model.param_specs["head"].shape == (BYTES, 16)


def test_checkpoints_that_differ_in_padding_alone_do_not_differ(tmp_path):
    for multiple in (1, 128):
        (tmp_path / str(multiple)).mkdir()
    plain, padded = (
        at_start(tmp_path / str(multiple), *SHAPE, f"model.vocabulary_multiple={multiple}")
        for multiple in (1, 128)
    )
    found = diff(plain.path, padded.path)
    assert found.weights.total.equal
    assert not found.weights.one_sided
    (row,) = found.function.probe
    assert row.agreement == 1
    assert row.kl_ab == pytest.approx(0, abs=1e-9)
    assert found.function.losses[0].loss_b == pytest.approx(found.function.losses[0].loss_a, abs=1e-6)
