"""Two real checkpoints: what is equal is exactly zero, what differs is what plain numpy finds."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import cast

import jax
import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from harness.cli.json_output.json_text import json_text
from harness.compare.checkpoints.diff_types import PredictionDiff
from harness.compare.results.to_json import to_json
from harness.core.errors import UserError
from harness.data import open_data
from harness.inspection import load_run
from harness.inspection.diff import predictions
from harness.inspection.diff.diff_checkpoints import diff, picture_folder
from harness.models import TextModel, build
from harness.records.run.checkpoint_manifest import corruption_reason
from harness.records.run.config_file import read_config
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance, write_provenance
from harness.training.output.checkpointer import restore
from tests.inspection.saved import at_start, change_rows, change_weights
from tests.schemas.valid import check_output
from tests.training.runs import lane


@pytest.fixture(scope="module")
def pair(one, other):
    return diff(one.path, other.path)


@pytest.fixture
def unasked(monkeypatch):
    """Spares the compilation of models where only weights and curves matter."""
    monkeypatch.setattr(
        "harness.inspection.diff.diff_checkpoints.compare_predictions",
        lambda *_: PredictionDiff(refused="unasked"),
    )


def assert_all_zero(found):
    assert found.weights.total.equal
    assert found.weights.total.relative == 0
    assert all(row.distance.equal and row.distance.relative == 0 for row in found.weights.rows)
    assert not found.weights.one_sided
    for probe in found.function.probe:
        assert (probe.kl_ab, probe.kl_ba, probe.agreement) == (0, 0, 1)
    for row in (*found.function.losses, found.function.overall):
        assert (row.delta.mean, row.delta.low, row.delta.high, row.better) == (0, 0, 0, 0)
        assert not any(row.deltas)
    assert not found.notes


def test_a_checkpoint_is_at_distance_zero_from_itself(one, unasked):
    found = diff(one.path, f"{one.path}@30")
    assert found.weights.total.relative == 0
    assert found.divergence is None
    assert found.along == ()


def test_the_same_run_elsewhere_never_diverges(one, copied):
    found = diff(one.path, copied(one).path)
    assert_all_zero(found)
    assert dataclasses.astuple(found.divergence.losses) == (30, 1, 30, None, None)
    assert dataclasses.astuple(found.divergence.weights) == (5, 8, 30, None, None)
    assert found.divergence.same_examples


def answers(run, step):
    """Logits and losses of all held-out sequences, without anything of `probe`."""
    config = read_config(run.config)
    model = build(config, read_provenance(run).facts.shape["vocabulary"])
    params = jax.device_get(restore(run, step, lane(run).abstract_state()).params)
    (held,) = open_data(config.data).heldout(config.evaluation.tokens).values()
    assert isinstance(model, TextModel)
    logits = np.asarray(model.logits(params, cast(jax.Array, held.tokens_NT[:, :-1])), float)
    targets = held.tokens_NT[:, 1:, None]
    losses = -np.take_along_axis(log_softmax(logits, axis=-1), targets, axis=-1)[..., 0].mean(axis=1)
    tokens_alone = {"embedding": params["embedding"][: model.shape.vocabulary]}
    return params | tokens_alone, logits, losses


def test_its_json_is_as_published(pair, one, gqa):
    check_output(json_text("diff", pair), "diff")
    check_output(json_text("diff", diff(one.path, gqa.path)), "diff")


def test_two_seeds_agree_with_plain_numpy(one, other, monkeypatch):
    monkeypatch.setattr(load_run, "MAX_LOGITS_BYTES", 3 * 32 * 257 * 4)  # three sequences at a time, of eight
    monkeypatch.setattr(predictions, "PROBE_SEQUENCES", 5)
    found = diff(one.path, other.path)
    (a, logits_a, loss_a), (b, logits_b, loss_b) = answers(one, 30), answers(other, 30)
    p, q = softmax(logits_a[:5], axis=-1), softmax(logits_b[:5], axis=-1)
    (probe,), (row,) = found.function.probe, found.function.losses
    assert (probe.sequences, probe.tokens, row.examples) == (5, 160, 8)
    assert probe.kl_ab == pytest.approx(rel_entr(p, q).sum(-1).mean(), rel=2e-5)
    assert probe.kl_ba == pytest.approx(rel_entr(q, p).sum(-1).mean(), rel=2e-5)
    assert probe.agreement == np.mean(p.argmax(-1) == q.argmax(-1))
    np.testing.assert_allclose(row.deltas, loss_b - loss_a, atol=1e-5)
    assert row.better == np.mean(loss_b < loss_a)
    assert (row.loss_a, row.loss_b) == pytest.approx((loss_a.mean(), loss_b.mean()), abs=1e-5)
    for each in found.weights.rows:
        expected = np.linalg.norm(b[each.path] - a[each.path]) / np.linalg.norm(a[each.path])
        assert each.distance.relative == pytest.approx(expected, rel=1e-5)
    assert found.divergence.losses.bitwise == found.divergence.losses.relative == 1
    assert found.divergence.same_examples


def test_the_losses_are_those_that_the_runs_wrote_down(one, other, pair):
    (row,) = pair.function.losses
    for run, loss in ((one, row.loss_a), (other, row.loss_b)):
        assert loss == pytest.approx(read_curve(run, "evals")["loss"][-1], abs=1e-5)
    assert not pair.notes


def test_a_loss_that_the_run_did_not_write_down_is_told(one, other, pair, copied, monkeypatch):
    monkeypatch.setattr(
        "harness.inspection.diff.diff_checkpoints.compare_predictions", lambda *_: pair.function
    )
    run = copied(other)
    assert not diff(one.path, run.path).notes
    change_rows(run, "evals", lambda rows: rows.with_columns(pl.col("loss") + 0.1))
    (note,) = diff(one.path, run.path).notes
    assert "xs/mha/seed1@30 recorded a held-out loss" in note


def test_other_architectures_are_compared_where_they_can_be(one, gqa):
    found = diff(one.path, gqa.path)
    shapes = [read_provenance(run).facts.paths for run in (one, gqa)]
    odd = {path for path in shapes[0] | shapes[1] if shapes[0].get(path) != shapes[1].get(path)}
    assert "layers.0.attention.key" in odd
    assert {each.path for each in found.weights.one_sided} == odd
    assert {row.path for row in found.weights.rows} == (shapes[0] | shapes[1]).keys() - odd
    for each in found.weights.one_sided:
        for shape, paths in ((each.shape_a, shapes[0]), (each.shape_b, shapes[1])):
            assert (list(shape) if shape else None) == paths.get(each.path)
    assert found.function.probe[0].kl_ab > 0


LAYERS = ("model.layers=2", "model.width=32", "model.heads=2", "model.ffn=40", "model.match=none")


@pytest.mark.slow
def test_how_layers_are_stored_and_split_is_no_difference(folder):
    plain = at_start(folder, *LAYERS, "seed=7")
    scanned = at_start(folder, *LAYERS, "seed=7", "compute.scan_layers=true", "variant.name=scanned")
    wide = at_start(folder, *LAYERS, "seed=7", "mesh.data=2", "mesh.fsdp=2", "variant.name=wide")
    for run in (scanned, wide):
        found = diff(plain.path, run.path)
        assert len(found.weights.rows) == 24
        assert found.weights.total.equal
        assert not found.weights.one_sided
        assert found.function.probe[0].kl_ab < 1e-9
        assert found.function.overall.delta.mean == pytest.approx(0, abs=1e-6)
    (kind,) = [each for each in found.weights.kinds if each.kind == "layers.*.attention.key"]
    assert (kind.layers, kind.distance.parameters) == (2, 2 * 32 * 32)


def test_the_first_divergence_is_found(one, copied, unasked):
    run = copied(one)

    def change(rows):
        loss = rows["loss"].to_numpy().copy()
        loss[19] = np.nextafter(loss[19], np.inf)
        loss[24] *= 1 + 2e-6
        return rows.with_columns(loss=pl.Series(loss))

    change_rows(run, "steps", change)
    change_weights(run, 16, "norm.gain", lambda w: np.nextafter(w, np.float32(9)))
    change_weights(run, 24, "norm.gain", lambda w: w + np.float32(0.01))
    found = diff(one.path, run.path).divergence
    assert (found.losses.bitwise, found.losses.relative) == (20, 25)
    assert (found.weights.bitwise, found.weights.relative) == (16, 24)
    assert [each.step for each in found.checkpoints if not each.distance.equal] == [16, 24]


def test_a_branch_parts_from_its_run_where_it_left(one, unasked):
    found = diff(one.path, one.branch(0.5).path)
    losses = found.divergence.losses
    assert (losses.compared, losses.first, losses.last) == (15, 1, 15)
    assert losses.bitwise == 15  # the first update at another rate leads to step 14, whose loss comes next
    assert [each.step for each in found.divergence.checkpoints] == [8, 13]
    assert found.divergence.weights.bitwise is None
    assert found.b.name.endswith("seed0/branch50@15")


def test_along_one_run_the_distance_grows_from_zero(one, unasked):
    found = diff(f"{one.path}@30", f"{one.path}@8")
    assert found.divergence is None
    assert [each.step for each in found.along] == [8, 13, 16, 24, 30]
    grown = [cast(float, each.distance.relative) for each in found.along]
    assert grown[0] == 0
    assert grown == sorted(grown)
    (first, *_), (last, *_) = answers(one, 8), answers(one, 30)
    flat = [np.concatenate([each[path].ravel() for path in sorted(each)]) for each in (first, last)]
    assert grown[-1] == pytest.approx(np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0]), rel=1e-5)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.tokenizer=bpe512", "data.tokenizer=byte has 257 tokens and bpe512 has 512"),
        ("evaluation.tokens=128", "evaluation.tokens is 256 and 128"),
        ("data.holdout=0.4", "data.holdout is 0.3 and 0.4"),
    ],
)
def test_other_held_out_tokens_leave_the_weights(one, tmp_path, override, said):
    run = at_start(tmp_path, override)
    found = diff(one.path, run.path)
    assert said in found.function.refused
    assert found.function.probe == found.function.losses == ()
    assert found.weights.rows


def test_text_that_has_changed_is_not_asked_about(tmp_path):
    run = at_start(tmp_path)
    with (tmp_path / "text.txt").open("a") as file:
        file.write("\n<|endoftext|>\none more document")
    assert "changed after" in diff(run.path, run.path).function.refused
    (tmp_path / "text.txt").unlink()
    assert "cannot be read" in diff(run.path, run.path).function.refused


def refused(one, other):
    with pytest.raises(UserError) as raised:
        diff(one, other)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_no_run_is_answered_with_runs(one, folder):
    assert f"did you mean '{one.path}'" in refused(f"{one.path}x", one.path)
    below = refused(one.path, folder / "sweep")
    assert "is not a run" in below
    assert str(one.path) in below
    assert "`harness sweep` creates one" in refused(folder / "nothing" / "here" / "at" / "all", one.path)


def test_a_step_without_a_checkpoint_is_answered_with_those_there_are(one):
    assert "there are 8, 13, 16, 24, 30" in refused(f"{one.path}@9", one.path)
    assert "'end' is not a step" in refused(f"{one.path}@end", one.path)


def test_a_damaged_checkpoint_is_named_and_stepped_over_only_where_none_is_named(one, copied, unasked):
    run = copied(one)
    biggest = max(run.checkpoint(30).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    biggest.write_bytes(biggest.read_bytes()[:-1])
    said = refused(f"{run.path}@30", one.path)
    assert biggest.name in said
    assert "valid ones: 8, 13, 16, 24" in said
    found = diff(run.path, one.path)
    assert found.a.step == 24
    assert biggest.name in found.notes[0]


def test_nothing_to_read_is_said(one, copied, folder):
    run = copied(one)
    for step in (8, 13, 16, 24, 30):
        (run.checkpoint(step) / "orbax.checkpoint").unlink()
        assert corruption_reason(run, step)
    assert "has no valid checkpoint" in refused(run.path, one.path)
    for manifest in run.checkpoints.glob("*.json"):
        manifest.unlink()
    assert "no checkpoint was saved yet (the run is finished at step 30)" in refused(run.path, one.path)
    run.run.write_text("{")
    assert "damaged" in refused(run.path, one.path)


def test_a_checkpoint_of_another_run_is_refused(one, copied, other):
    run = copied(one)
    run.manifest(30).write_bytes(other.manifest(30).read_bytes())
    assert "damaged" in refused(f"{run.path}@30", one.path)
    provenance = read_provenance(run)
    assert provenance
    write_provenance(run, dataclasses.replace(provenance, identity="0" * 64))
    assert "another run" in refused(f"{run.path}@24", one.path)


def test_code_that_builds_another_model_is_refused(one, copied):
    run = copied(one)
    provenance = read_provenance(run)
    assert provenance
    paths = provenance.facts.paths | {"norm.gain": [7]}
    facts = dataclasses.replace(provenance.facts, paths=paths)
    write_provenance(run, dataclasses.replace(provenance, facts=facts, code_hash="1"))
    assert "norm.gain was trained with shape [7]" in refused(run.path, one.path)


def test_other_code_is_told(one, copied, unasked):
    run = copied(one)
    provenance = read_provenance(run)
    assert provenance
    write_provenance(run, dataclasses.replace(provenance, code_hash="1"))
    assert len(diff(one.path, run.path).notes) == 2


def test_a_diff_is_plain_data(pair):
    text = json.dumps(to_json(pair), allow_nan=False)
    assert json.loads(text)["function"]["overall"]["delta"]["estimand"] == "trajectory_only"


def test_pictures_belong_to_the_first_sweep(one, tmp_path):
    assert picture_folder(f"{one.path}@8") == one.path.parents[2] / "pictures"
    assert picture_folder(one.branch(0.5).path) == one.path.parents[2] / "pictures"


ALONE = """
import sys
from harness.inspection.diff.diff_checkpoints import diff
import harness.report.checkpoint_diff
assert "jax" not in sys.modules
found = diff(*sys.argv[1:])
import jax
print(len(jax.devices()), found.function.overall.delta.mean)
"""


def test_alone_it_runs_on_one_device_from_a_relative_path(one, other, pair):
    names = [os.path.relpath(run.path, one.path.parent) for run in (one, other)]
    unset = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *names],
        cwd=one.path.parent,
        env=unset,
        capture_output=True,
        text=True,
        check=True,
    )
    devices, mean = done.stdout.split()
    assert devices == "1"
    assert float(mean) == pytest.approx(pair.function.overall.delta.mean, abs=1e-5)
