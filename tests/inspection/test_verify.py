"""A run made again is bitwise what it was; what is not is named, with what is otherwise around it."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import numpy as np
import polars as pl
import pytest

from harness.cli import main
from harness.compare.checkpoints.replay_check import check_state, find_mismatches
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.inspection.replay.step_range import find_step_range
from harness.inspection.replay.verify import verify as verify_afresh
from harness.records.run.checkpoint_manifest import read_manifest, write_manifest
from harness.records.run.environment import Environment, append_entry, environment_at, environment_changes
from harness.records.run.provenance import code_hash_at, read_provenance, write_provenance
from harness.records.run.status import ProcessInfo, State, read_status, write_status
from tests.inspection.conftest import trained
from tests.inspection.saved import change_rows, change_weights
from tests.schemas.valid import check_output
from tests.training import test_finetune, test_images

verify = functools.partial(verify_afresh, cached=True)
"""What is compared does not depend on where its programs come from."""


def test_programs_are_compiled_afresh(one, tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path))
    assert verify_afresh(one.path).same
    assert not [*tmp_path.rglob("programs/step-*")]
    jax.clear_caches()  # what this process has compiled before is not stored
    assert verify(one.path).same
    assert [*tmp_path.rglob("programs/step-*")]


def test_a_run_is_bitwise_what_it_was(one):
    before = {path: path.stat().st_mtime_ns for path in one.path.rglob("*")}
    found = verify(one.path)
    assert found.same
    assert (found.name, found.first, found.last, found.equal) == ("xs/mha/seed0", 24, 30, 6)
    assert found.columns == ("loss", "grad_norm", "learning_rate", "tokens", "flops")
    assert (found.evaluations.steps, found.evaluations.equal, found.evaluations.parting) == ((30,), 1, None)
    assert found.evaluations.columns == ("tokens", "flops", "loss", "bits_per_byte", "decayed")
    (state,) = found.states
    assert (state.step, state.differing, state.same_examples) == (30, (), True)
    assert state.arrays > 20
    assert not found.changes
    assert not found.notes
    assert {path: path.stat().st_mtime_ns for path in one.path.rglob("*")} == before


@pytest.mark.slow
def test_from_its_start_over_several_checkpoints(one):
    found = verify(f"{one.path}@0", steps=15)
    assert found.same
    assert (found.first, found.last, [state.step for state in found.states]) == (0, 15, [8, 13])
    assert (found.evaluations.steps, found.evaluations.equal) == ((15,), 1)


def test_a_branch_starts_from_its_parent(one):
    found = verify(one.branch(0.5).path)
    assert found.same
    assert (found.name, found.first, found.last) == ("xs/mha/seed0/branch50", 13, 15)
    assert [state.step for state in found.states] == [15]
    assert (found.evaluations.steps, found.evaluations.equal) == ((15,), 1)


@pytest.mark.slow
def test_the_next_checkpoint_ends_it(one):
    found = verify(f"{one.path}@8")
    assert (found.first, found.last) == (8, 13)


def test_a_bit_of_a_loss_is_seen(one, copied):
    run = copied(one)

    def change(rows):
        loss = rows["loss"].to_numpy().copy()
        loss[26] = np.nextafter(loss[26], np.inf)
        return rows.with_columns(loss=pl.Series(loss))

    change_rows(run, "steps", change)
    found = verify(run.path)
    assert not found.same
    assert (found.equal, found.parting.step, found.parting.column) == (5, 27, "loss")
    assert 0 < found.largest == found.parting.recorded - found.parting.replayed < 1e-14
    assert found.states[0].same


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("loss", lambda rows: rows.with_columns(loss=pl.col("loss") - 0.3)),
        (
            "loss",
            lambda rows: rows.filter(pl.col("step") < 30).vstack(
                rows.tail(1).with_columns(domain=pl.lit("b"))
            ),
        ),
        ("bits_per_byte", lambda rows: rows.with_columns(bits_per_byte=pl.col("bits_per_byte") * 1.0000001)),
        ("tokens", lambda rows: rows.with_columns(tokens=pl.col("tokens") * 2)),
        ("decayed", lambda rows: rows.with_columns(decayed=~pl.col("decayed"))),
    ],
)
def test_a_changed_evaluation_is_seen(one, copied, column, change):
    run = copied(one)
    change_rows(run, "evals", change)
    found = verify(run.path)
    assert not found.same
    assert found.parting is None
    parting = found.evaluations.parting
    assert (found.evaluations.equal, parting.step, parting.column) == (0, 30, column)


def test_a_lowered_evaluation_of_a_branch_is_seen(one, copied):
    run = copied(one)
    change_rows(run.branch(0.5), "evals", lambda rows: rows.with_columns(loss=pl.col("loss") - 0.3))
    found = verify(run.branch(0.5).path)
    assert not found.same
    assert found.evaluations.largest == pytest.approx(0.3)


@pytest.mark.parametrize("kind", ["steps", "evals"])
def test_a_damaged_part_of_the_curve_is_named(one, copied, kind):
    run = copied(one)
    for part in run.metrics.glob(f"{kind}-*"):
        part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=rf"no step follows, since the curve is damaged \(.*/{kind}-.*checksum"
    ):
        find_step_range(run.path)


def test_a_branch_whose_parent_lost_its_checkpoint_says_so(one, copied):
    run = copied(one)
    next(run.checkpoint(13).rglob("manifest.ocdbt")).write_bytes(b"")
    with pytest.raises(UserError, match=r"since the checkpoint of its parent at step 13 is damaged"):
        find_step_range(run.branch(0.5).path)


def test_the_range_without_a_step_has_an_evaluation(one, copied):
    run = copied(one)
    assert find_step_range(run.path).evaluated_steps == (30,)
    for step in (24, 30):  # the curve still reaches to 30
        run.manifest(step).unlink()
    part = find_step_range(run.path)
    assert (part.first, part.last, part.evaluated_steps) == (13, 16, (15,))
    run.manifest(16).unlink()
    change_rows(run, "evals", lambda rows: rows.filter(pl.col("step") == 30))
    part = find_step_range(run.path)
    assert (part.first, part.last, part.evaluated_steps) == (13, 30, (30,))
    change_rows(run, "evals", lambda rows: rows.with_columns(step=pl.lit(13, pl.Int64)))
    part = find_step_range(run.path)
    assert (part.first, part.last, part.evaluated_steps) == (8, 13, (13,))
    assert find_step_range(f"{run.path}@13").evaluated_steps == (13,)
    assert find_step_range(f"{run.path}@0").evaluated_steps == ()


def test_a_bit_of_a_weight_is_seen(one, copied):
    run = copied(one)
    change_weights(run, 30, "norm.gain", lambda w: np.nextafter(w, np.float32(9)))
    found = verify(run.path)
    assert found.parting is None
    assert found.states[0].differing == ("params/norm.gain",)
    assert 0 < found.states[0].largest < 1e-6
    change_weights(run, 24, "norm.gain", lambda w: np.nextafter(w, np.float32(9)))
    assert verify(run.path).parting.step == 25


def test_other_examples_are_seen(one, copied):
    run = copied(one)
    manifest = read_manifest(run, 30)
    assert manifest
    write_manifest(run, dataclasses.replace(manifest, example_hash="0" * 64))
    (state,) = verify(run.path).states
    assert (state.differing, state.same_examples) == ((), False)


def test_what_changed_around_a_run_is_named(one, copied):
    run = copied(one)
    record = read_provenance(run)
    assert record
    (seen,) = record.surroundings
    then = seen | {"flags": f"{seen['flags']} --xla_old=1", "versions": seen["versions"] | {"optax": "0.1"}}
    code = f"{record.code_hash}@24+{'f' * 64}"
    write_provenance(
        run,
        dataclasses.replace(record, surroundings=[then], code_hash=code, config_hash="e" * 64),
    )
    found = verify(run.path)
    assert found.same
    said = {each.what: (each.then, each.now) for each in found.changes}
    assert said.keys() == {"code", "config", "flags", "optax"}
    assert said["code"][0] == "f" * 12
    assert said["flags"] == ("--xla_old=1", "none")
    assert said["optax"][0] == "0.1"
    assert not found.unrecorded_conditions
    assert "code" not in {each.what for each in verify(f"{run.path}@16").changes}


@pytest.mark.slow
def test_a_run_from_before_the_record_is_replayed_and_that_is_said(one, copied):
    run = copied(one)
    content = atomic_files.read_checksummed_json(run.run)
    del content["surroundings"]
    atomic_files.write_json(run.run, content)
    found = verify(run.path)
    assert found.same
    assert found.unrecorded_conditions == ("devices", "processor", "XLA flags", "environment variables")


def test_a_run_of_an_earlier_version_is_not_said_to_be_in_the_same_environment(one, copied, capsys):
    run = copied(one)
    record = read_provenance(run)
    assert record
    (seen,) = record.surroundings
    old = {key: value for key, value in seen.items() if key != "variables"}
    write_provenance(run, dataclasses.replace(record, surroundings=[old]))
    change_rows(run, "steps", lambda rows: rows.with_columns(loss=pl.col("loss") + 1.0))
    assert main(["verify", str(run.path), "--cached"]) == 1
    said = capsys.readouterr().out
    assert "Not recorded, so they may differ: environment variables of JAX and XLA." in said


def test_a_change_of_environment_within_the_range_is_named(one, copied):
    run = copied(one)
    record = read_provenance(run)
    assert record
    (seen,) = record.surroundings
    later = seen | {"step": 27, "cores": seen["cores"] + 60}
    write_provenance(run, dataclasses.replace(record, surroundings=[seen, later]))
    (change,) = verify(run.path).changes
    assert (change.what, change.then) == ("cores", str(seen["cores"] + 60))
    write_provenance(run, dataclasses.replace(record, code_hash=f"{record.code_hash}@27+{'f' * 64}"))
    (change,) = verify(run.path).changes
    assert change.what == "code"


def refused(where, steps=None):
    with pytest.raises(UserError) as raised:
        verify(where, steps)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_mistakes_are_one_sentence(one, folder, copied):
    assert "is not a run" in refused(folder / "sweep")
    assert "no checkpoint at that step. It can be replayed from 0, 8, 13, 16, 24" in refused(f"{one.path}@9")
    assert "its curve on disk ends at step 30" in refused(f"{one.path}@30")
    assert "--steps=0" in refused(one.path, 0)
    run = copied(one)
    status = read_status(run)
    write_status(run, dataclasses.replace(status, state=State.running, writer=ProcessInfo.current()))
    assert "still training" in refused(run.path)
    assert "still training" in refused(run.branch(0.5).path)


def test_a_damaged_checkpoint_is_named(one, copied):
    run = copied(one)
    biggest = max(run.checkpoint(24).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    biggest.write_bytes(biggest.read_bytes()[:-1])
    assert biggest.name in refused(f"{run.path}@24")
    found = verify(run.path)
    assert (found.first, found.last, found.same) == (16, 30, True)
    assert biggest.name in found.notes[0]


@pytest.mark.slow
def test_a_run_that_keeps_its_last_checkpoint_alone_is_made_again_from_its_start(one, copied):
    run = copied(one)
    for step in (8, 13, 16, 24):
        run.manifest(step).unlink()
    found = verify(run.path)
    assert (found.first, found.last, found.same) == (0, 30, True)
    assert "There is nothing to replay" in refused(run.branch(0.5).path)


def test_other_data_is_refused(one, folder):
    text = folder / "text.txt"
    before = text.read_bytes()
    text.write_bytes(before + b"\n<|endoftext|>\none more document")
    try:
        assert "its training data has changed" in refused(one.path)
    finally:
        text.write_bytes(before)


def test_too_few_devices_are_said(one, monkeypatch):
    monkeypatch.setattr("jax.devices", list)
    assert "was trained on 1 devices, but 0 are available" in refused(one.path)


def test_the_verb_in_a_process_of_its_own(one, copied):
    run = copied(one)
    moved = run.path.rename(run.path.with_name("seed[0]"))  # a name that reads like a pattern
    command = [sys.executable, "-m", "harness.cli", "verify", str(moved)]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 bitwise equal" in done.stdout
    assert "Evaluation at step 30: 1 of 1 bitwise equal" in done.stdout
    assert "arrays bitwise equal; the same examples were read" in done.stdout
    assert "Different from its training" not in done.stdout
    assert "may differ" not in done.stdout


def test_the_verb_says_what_differs_and_leaves_with_one(one, copied, capsys):
    run = copied(one)
    change_rows(run, "steps", lambda rows: rows.with_columns(grad_norm=pl.col("grad_norm") + 1.0))
    assert main(["verify", str(run.path)]) == 1
    said = capsys.readouterr().out
    assert "0 of 6 bitwise equal" in said
    assert "The first difference is at step 25: grad_norm" in said
    assert "Everything that it recorded is as it was" in said
    assert main(["verify", str(run.path), "--json"]) == 1
    content = check_output(capsys.readouterr().out, "verify")
    assert (content["same"], content["parting"]["step"], content["equal"]) == (False, 25, 0)
    assert (content["evaluations"]["steps"], content["evaluations"]["equal"]) == ([30], 1)
    assert main(["verify", "nowhere/a"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_parts():
    nan = float("nan")
    rows = [{"step": 1, "loss": nan, "grad_norm": 2.0}, {"step": 2, "loss": 1.0, "grad_norm": None}]
    assert not find_mismatches(rows, [{"step": 1, "loss": nan}, {"step": 2, "loss": 1.0, "grad_norm": 5.0}])
    assert len(find_mismatches(rows, [{"step": 1, "loss": 0.0}, {"step": 2, "loss": nan}])) == 2
    zero = check_state(
        1, {"a": np.array([0.0], np.float32)}, {"a": np.array([-0.0], np.float32)}, same_examples=True
    )
    assert zero.differing == ("a",)
    assert [code_hash_at("a@5+b@9+c", step) for step in (0, 4, 5, 8, 9)] == ["a", "a", "b", "b", "c"]


SEEN = Environment("cpu", "cpu", 1, 2, 4, "x86_64", "fpu avx", "--a --b", {"jax": "1"})


def test_surroundings_are_kept_by_step():
    moved = dataclasses.replace(SEEN, features="avx fpu amx", cores=2, versions={"jax": "2", "new": "1"})
    known = append_entry([], 0, SEEN)
    assert append_entry(known, 10, SEEN) == known
    known = append_entry(known, 10, moved)
    assert (
        environment_at(known, 9),
        environment_at(known, 10),
        environment_at([], 3),
        environment_at([{"step": 0}], 3),
    ) == (SEEN, moved, None, None)
    assert append_entry(known, 5, SEEN) == known[:1]  # taken up before the change
    assert append_entry(known, 0, moved) == [{**known[1], "step": 0}]
    said = [(each.what, each.then, each.now) for each in environment_changes(SEEN, moved)]
    assert said == [
        ("cores", "4", "2"), ("features", "none", "amx"), ("jax", "1", "2"), ("new", "absent", "1")
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("mesh.data=2", "compute.microbatches=2"),
        ("variant=moe", "mesh.data=2", "mesh.expert=2"),
        ("optimizer=muon", "mesh.fsdp=2"),
    ],
)
def test_wider_runs(tmp_path, overrides):
    found = verify(trained(tmp_path, *overrides).path)
    assert found.same
    assert ("expert_load" in found.columns) == ("variant=moe" in overrides)


@pytest.mark.slow
def test_a_run_of_images(tmp_path):
    run = test_images.prepare(tmp_path, "variant=adaptive_norm")
    assert test_images.train(run) is State.finished
    assert verify(run.path).same
    assert verify(f"{run.path}@0").same


@pytest.mark.slow
@pytest.mark.parametrize("method", test_finetune.METHODS)
def test_a_fine_tuned_run_from_its_start(one, tmp_path, method):
    text = one.path.parents[3] / "text.txt"
    shared = f"data.sources.own.path={text}", f"finetune.parent={one.path}"
    run = trained(tmp_path, *shared, *test_finetune.SHORT, *test_finetune.METHODS[method])
    found = verify(f"{run.path}@0", steps=16)
    assert found.same
    assert [state.step for state in found.states] == [8, 16]
