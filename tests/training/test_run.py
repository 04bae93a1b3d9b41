"""Resumed equals uninterrupted, bitwise; what is damaged is named and computed again."""

import dataclasses
import errno
import shutil
import threading

import jax
import numpy as np
import polars as pl
import pytest

from harness.core.atomic_files import read_json
from harness.records.run import checkpoint_manifest, metrics
from harness.records.run.checkpoint_manifest import valid_steps
from harness.records.run.example_hash import read_examples
from harness.records.run.integrity import find_damage
from harness.records.run.metrics import EVALS, STEPS
from harness.records.run.status import State, read_status
from harness.records.run.stream_hash import parse_stream
from harness.records.run.training_target import write_target
from harness.training.output import checkpointer
from harness.training.output.checkpointer import restore
from harness.training.run import train_run
from tests.training.runs import assignment, curve, lane, prepare, stopping_at, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nobody stopped, and a lane to train others like it."""
    run = prepare(tmp_path_factory.mktemp("undisturbed"))
    assert train(run) is State.finished
    return run


def copy_of(run, folder):
    """The same run in another place, as far as it stands."""
    shutil.copytree(run.path, folder / "run")
    return dataclasses.replace(run, path=folder / "run")


def assert_same(run, reference):
    for one, other in ((run, reference), (run.branch(0.5), reference.branch(0.5))):
        assert curve(one).equals(curve(other))
        assert curve(one, "evals").equals(curve(other, "evals"))
        assert read_json(one.path / "examples.json") == read_json(other.path / "examples.json")
        assert read_status(one).state is State.finished
        assert not find_damage(one)


def test_a_run_leaves_a_whole_curve_and_its_checkpoints(undisturbed):
    steps, evals = metrics.read_curve(undisturbed, "steps"), metrics.read_curve(undisturbed, "evals")
    assert steps.schema == pl.Schema(STEPS)
    assert evals.schema == pl.Schema(EVALS)
    assert steps["step"].to_list() == list(range(1, 31))
    assert evals["step"].to_list() == [15, 30]
    assert evals["decayed"].to_list() == [False, True]
    assert steps["tokens"].to_list() == [256 * step for step in range(1, 31)]
    assert steps["device_seconds"].is_sorted()
    assert valid_steps(undisturbed)[0] == [8, 13, 16, 24, 30]
    branch = metrics.read_curve(undisturbed.branch(0.5), "steps")
    assert branch["step"].to_list() == [14, 15]
    assert steps["loss"][-1] < steps["loss"][0] - 0.5


@pytest.mark.parametrize("at", [1, 8, 14, 29])
def test_stopped_and_resumed_is_bitwise_the_same(undisturbed, tmp_path, at):
    run = prepare(tmp_path)
    stop = threading.Event()
    first = lane(run)
    stopped = dataclasses.replace(first, get_batch=stopping_at(at, first.get_batch, stop))
    assert train_run(assignment(run), stopped, stop) is State.preempted
    assert train(run, first_device=3) is State.finished
    assert_same(run, undisturbed)


def stream_of(run):
    """The hash of the examples that a run read, one by one."""
    stream = parse_stream((read_examples(run) or {}).get("stream"))
    assert stream is not None
    return stream


def test_other_batches_read_the_same_stream(undisturbed, tmp_path):
    run = prepare(tmp_path, "scale.batch=12")
    assert train(run) is State.finished
    assert stream_of(run).agrees_with(stream_of(undisturbed)) is True
    assert stream_of(run.branch(0.5)).agrees_with(stream_of(undisturbed.branch(0.5))) is True
    assert (stream_of(run).examples, stream_of(run.branch(0.5)).examples) == (240, 120)
    (tmp_path / "other").mkdir()
    other_order = prepare(tmp_path / "other", "scale.batch=12", "data_seed=5")
    assert train(other_order) is State.finished
    assert stream_of(other_order).agrees_with(stream_of(undisturbed)) is False


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", ["metrics/steps-*", "metrics/evals-*", "branch50/metrics/steps-*"])
def test_a_damaged_part_is_named_and_computed_again(undisturbed, tmp_path, what):
    run = copy_of(undisturbed, tmp_path)
    (path,) = run.path.glob(what)
    flip_a_bit(path)
    assert any(path.name in sentence for sentence in find_damage(run))
    assert train(run) is State.finished
    assert path.name in run.log.read_text() + run.branch(0.5).log.read_text()
    assert_same(run, undisturbed)


@pytest.mark.parametrize("step", [30, 13])
def test_a_damaged_checkpoint_is_stepped_over(undisturbed, tmp_path, step):
    run = copy_of(undisturbed, tmp_path)
    shutil.rmtree(run.branch(0.5).path)
    biggest = max(run.checkpoint(step).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    flip_a_bit(biggest)
    assert any(biggest.name in sentence for sentence in find_damage(run))
    assert train(run) is State.finished
    assert biggest.name in run.log.read_text()
    assert_same(run, undisturbed)


@pytest.mark.parametrize(
    "name",
    [
        "examples.json",
        "status.json",
        "run.json",
        "metrics",
        "checkpoints",
        "checkpoints/00000015.manifest.json",
    ],
)
def test_what_a_branch_lost_is_missed_and_computed_again(undisturbed, tmp_path, name):
    run = copy_of(undisturbed, tmp_path)
    lost = run.branch(0.5).path / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert find_damage(run, [0.5])
    assert train(run) is State.finished
    assert_same(run, undisturbed)


@pytest.mark.parametrize("what", ["metrics/steps-00000008-*", "metrics/evals-00000000-*"])
def test_a_part_that_is_damaged_before_the_end_shortens_no_curve(undisturbed, tmp_path, monkeypatch, what):
    """Joined without it, the curve would end there, whole by every checksum."""
    run = prepare(tmp_path)
    _when_the_last_part_is_sealed(monkeypatch, lambda: flip_a_bit(next(run.path.glob(what))))
    assert train(run) is State.failed
    assert "complete up to step" in read_status(run).message
    monkeypatch.undo()
    assert train(run) is State.finished
    assert_same(run, undisturbed)


def test_a_branch_does_not_leave_from_a_damaged_fork(undisturbed, tmp_path, monkeypatch):
    """Orbax would read the flipped bit, and every number of the branch would be wrong."""
    run = prepare(tmp_path)

    def damage():
        files = [path for path in run.checkpoint(13).rglob("*") if path.is_file()]
        flip_a_bit(max(files, key=lambda path: path.stat().st_size))

    _when_the_last_part_is_sealed(monkeypatch, damage)
    assert train(run) is State.failed
    assert "checksum" in read_status(run).message
    monkeypatch.undo()
    assert train(run) is State.finished
    assert_same(run, undisturbed)


def _when_the_last_part_is_sealed(monkeypatch, damage):
    """Once, before the run ends."""
    real, due = metrics.write_part, [damage]

    def write_part(run, kind, start, end, rows):
        if end == 30 and due:
            due.pop()()
        return real(run, kind, start, end, rows)

    monkeypatch.setattr(metrics, "write_part", write_part)


def test_a_damaged_goal_is_not_taken_for_the_end(tmp_path):
    run = prepare(tmp_path)
    write_target(run, 0.5)
    run.training_target.write_text(run.training_target.read_text().replace("0.5", "0.9"))
    assert train(run) is State.failed
    assert read_status(run).step == 0


def test_a_checkpoint_without_manifest_does_not_exist(undisturbed, tmp_path):
    run = copy_of(undisturbed, tmp_path)
    run.manifest(30).unlink()
    shutil.rmtree(run.checkpoint(24) / "state")
    assert valid_steps(run)[0] == [8, 13, 16]
    assert train(run) is State.finished
    assert_same(run, undisturbed)


def test_a_checkpoint_of_another_run_is_not_continued(undisturbed, tmp_path):
    run = prepare(tmp_path, "optimizer.learning_rate=0.001")
    shutil.copytree(undisturbed.checkpoints, run.checkpoints)
    shutil.copytree(undisturbed.metrics, run.metrics)
    assert train(run) is State.finished
    assert not curve(run).equals(curve(undisturbed))


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(tmp_path):
    run = prepare(tmp_path, "optimizer.learning_rate=1e30")
    assert train(run) is State.diverged
    finite = curve(run)["loss"].is_finite().to_list()
    assert finite == [True] * (len(finite) - 1) + [False]
    assert f"at step {len(finite)}" in read_status(run).message


def test_a_full_disk_loses_nothing(undisturbed, tmp_path, monkeypatch):
    run = prepare(tmp_path)
    real = metrics.write_part

    def full(run, kind, start, end, rows):
        if end > 16:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(run, kind, start, end, rows)

    monkeypatch.setattr(metrics, "write_part", full)
    assert train(run) is State.failed
    assert read_status(run).message.count("disk is full") == 1
    monkeypatch.undo()
    assert train(run) is State.finished
    assert_same(run, undisturbed)


def in_brackets(tmp_path):
    run = prepare(tmp_path)
    folder = tmp_path / "exp[1]" / "seed0"
    shutil.copytree(run.path, folder)
    return dataclasses.replace(run, path=folder)


def test_a_run_in_a_folder_that_reads_like_a_pattern_continues(undisturbed, tmp_path):
    run = in_brackets(tmp_path)
    stop = threading.Event()
    first = lane(run)
    stopped = dataclasses.replace(first, get_batch=stopping_at(14, first.get_batch, stop))
    assert train_run(assignment(run), stopped, stop) is State.preempted
    assert train(run) is State.finished
    assert "continues from step 15" in run.log.read_text()
    assert_same(run, undisturbed)


def test_a_run_whose_checkpoints_cannot_be_restored_starts_over(undisturbed, tmp_path, monkeypatch):
    """As those that Orbax saves in such a folder by itself."""
    run = in_brackets(tmp_path)
    monkeypatch.setattr(checkpointer, "load_template", lambda _: None)
    monkeypatch.setattr(checkpointer, "orbax_path", lambda path: path.absolute())
    assert train(run) is State.failed  # at its first save
    assert "just saved cannot be restored" in read_status(run).message
    monkeypatch.setattr(checkpointer, "_prove", lambda path, state: None)
    assert train(run) is State.failed  # where its branch starts
    assert valid_steps(run)[0] == [8, 16, 24, 30]
    assert len(read_status(run).message) < 600
    monkeypatch.undo()
    assert train(run) is State.finished
    assert "started over: none of its checkpoints can be restored" in read_status(run).message
    assert "continues from" not in run.log.read_text()
    kept = [path.name for path in run.path.glob("superseded/*/checkpoints/*/")]
    assert sorted(kept) == ["00000008", "00000013"]
    assert_same(run, undisturbed)


def test_an_earlier_checkpoint_is_taken_where_the_last_cannot_be_restored(undisturbed, tmp_path, monkeypatch):
    run = copy_of(undisturbed, tmp_path)
    shutil.rmtree(run.checkpoint(30))
    shutil.copytree(run.checkpoint(24), run.checkpoint(30))
    (run.checkpoint(30) / "state" / "manifest.ocdbt").unlink()
    manifest = checkpoint_manifest.read_manifest(run, 30)
    assert manifest
    checkpoint_manifest.write_manifest(run, manifest)
    assert train(run) is State.finished
    assert "continued from step 24" in read_status(run).message
    assert_same(run, undisturbed)


def test_a_checkpoint_restores_onto_another_mesh_exactly(undisturbed, tmp_path):
    wide = prepare(tmp_path, "mesh.data=2", "mesh.fsdp=2")
    states = [restore(undisturbed, 30, lane(each).abstract_state()) for each in (undisturbed, wide)]
    narrow, sharded = map(jax.tree.leaves, states)
    assert any(len(leaf.sharding.device_set) == 4 for leaf in sharded)
    assert all(np.array_equal(a, b) for a, b in zip(narrow, sharded, strict=True))
