"""What is saved can be restored, whatever its folder is called, and what cannot is not vouched for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import jax_array_handlers

from harness.config.schema.run import CheckpointConfig
from harness.core.atomic_files import CorruptFile
from harness.core.errors import UserError
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import Manifest, valid_steps
from harness.training.output import checkpointer
from harness.training.output.checkpointer import Checkpointer, RestoreError, restore
from harness.training.output.state_copy import copy_state

pytestmark = pytest.mark.usefixtures("own_cache")

STATE = {
    "params": {"layers.0.w": jnp.arange(6.0).reshape(2, 3), "gain": jnp.ones(3, jnp.bfloat16)},
    "n": (1,),
}
STATE = jax.tree.map(jnp.asarray, STATE)
ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), STATE)


def save(run: RunDir, step: int = 1, state=STATE, saver: Checkpointer | None = None) -> Checkpointer:
    saver = saver or Checkpointer(run, CheckpointConfig(keep_last=100))
    saver.save(state, Manifest(step, "", "", "", 0.0, {}))
    saver.wait()
    return saver


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "exp[1]",
        "lr[0.1-0.3]",
        "[!a]",
        "a[",
        "gs:",
        "back\\slash",
        "q?",
        "{x,y}",
        "p%5B1%5D",
        "h#1",
        "ü 日",
    ],
)
def test_a_folder_of_any_name(tmp_path, name):
    run = RunDir(tmp_path / name / "run")
    save(run)
    assert valid_steps(run)[0] == [1]
    assert same(restore(run, 1, ABSTRACT), STATE)
    (tmp_path / name).rename(tmp_path / "other")
    assert same(restore(RunDir(tmp_path / "other" / "run"), 1, ABSTRACT), STATE)


def test_a_pattern_does_not_take_the_parts_of_its_neighbours(tmp_path):
    save(RunDir(tmp_path / "axb"), state=jax.tree.map(lambda x: x + 1, STATE))
    save(RunDir(tmp_path / "a*b"))
    assert same(restore(RunDir(tmp_path / "a*b"), 1, ABSTRACT), STATE)


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(RunDir(Path("lr[1]")))
    assert same(restore(RunDir(Path("lr[1]")), 1, ABSTRACT), STATE)


def test_a_temporary_folder_with_special_characters_is_not_used(tmp_path, monkeypatch):
    odd = tmp_path / "tmp[1]"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    save(RunDir(tmp_path / "exp[1]"))
    assert not [*odd.iterdir()]


def test_a_link_folder_that_others_can_write_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"ab-harness-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match=r"you alone can write\)\. Rename the folder, or set TMPDIR"):
        Checkpointer(RunDir(tmp_path / "exp[1]"), CheckpointConfig())
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="you alone can write"):
        Checkpointer(RunDir(tmp_path / "exp[1]"), CheckpointConfig())
    Checkpointer(RunDir(tmp_path / "plain"), CheckpointConfig())


def test_a_checkpoint_that_cannot_be_restored_is_not_vouched_for(tmp_path, monkeypatch):
    """As Orbax itself leaves it in such a folder."""
    monkeypatch.setattr(checkpointer, "orbax_path", lambda path: path.absolute())
    run = RunDir(tmp_path / "exp[1]")
    with pytest.raises(CorruptFile, match="just saved cannot be restored"):
        save(run)
    assert valid_steps(run) == ([], [])
    with pytest.raises(RestoreError) as raised:
        restore(run, 1, ABSTRACT)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600 + len(str(run.path))


@pytest.mark.parametrize("change", [lambda x: x + 1, lambda x: x.astype(jnp.float16), lambda x: x[:1]])
def test_other_content_type_or_shape_is_seen(tmp_path, monkeypatch, change):
    real = Checkpointer._start_save
    spoilt = {**STATE, "params": {**STATE["params"], "layers.0.w": change(STATE["params"]["layers.0.w"])}}
    monkeypatch.setattr(
        Checkpointer, "_start_save", lambda self, state, manifest: real(self, spoilt, manifest)
    )
    with pytest.raises(CorruptFile, match="just saved"):
        save(RunDir(tmp_path / "run"))


def test_the_first_save_of_each_attempt_is_proven_and_no_other(tmp_path, monkeypatch):
    steps = []
    prove, check = checkpointer._prove, checkpointer.check_first
    monkeypatch.setattr(
        checkpointer, "_prove", lambda path, state: (steps.append(int(path.name)), prove(path, state))
    )
    monkeypatch.setattr(
        checkpointer, "check_first", lambda *args: (steps.append(int(args[1].name)), check(*args))
    )
    run = RunDir(tmp_path / "run")
    saver = save(run, 1)
    save(run, 2, saver=saver)
    save(run, 3)
    assert steps == [1, 3]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied"), MemoryError(), ValueError("RESOURCE_EXHAUSTED: x")]
)
def test_an_error_of_disk_or_memory_is_not_taken_for_a_bad_checkpoint(tmp_path, monkeypatch, error):
    run = RunDir(tmp_path / "run")
    save(run)

    def fail(path, abstract, resize):
        raise RuntimeError("wrapped") from error

    monkeypatch.setattr(checkpointer, "_load", fail)
    with pytest.raises(RuntimeError) as raised:
        restore(run, 1, ABSTRACT)
    assert not isinstance(raised.value, UserError)


def test_a_state_that_is_saved_without_a_copy_is_on_disk_when_the_call_returns(tmp_path, monkeypatch):
    """Fetched in turn, a few bytes at a time, it is the same checkpoint."""
    batches, real = [], jax_array_handlers._get_deprioritized_batches_to_serialize

    def batches_of(*arguments, **options):
        for batch in real(*arguments, **options):
            batches.append(options["device_host_max_bytes"])
            yield batch

    monkeypatch.setattr(jax_array_handlers, "_get_deprioritized_batches_to_serialize", batches_of)
    monkeypatch.setattr(checkpointer, "TRANSFER_BYTES", 8)
    run = RunDir(tmp_path / "run")
    saver = Checkpointer(run, CheckpointConfig(), in_background=False)
    saver.save(STATE, Manifest(1, "", "", "", 0.0, {}))
    assert valid_steps(run)[0] == [1]
    assert batches == [8] * len(jax.tree.leaves(STATE))
    assert same(restore(run, 1, ABSTRACT), STATE)
    save(RunDir(tmp_path / "other"))
    assert len(batches) == 3, "from a copy, all at once"


def test_what_is_saved_is_a_copy_made_before_the_next_step_overwrites_it():
    """The step is still running when the copy is asked for, and donates the state of the one before."""
    step = jax.jit(lambda state: jax.tree.map(lambda x: x @ x / 512 + 1, state), donate_argnums=0)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    for spec in (jax.P(), jax.P("d")):
        state = [jax.device_put(jnp.eye(512), jax.NamedSharding(mesh, spec))]
        for _ in range(20):
            state = step(state)
            copy = copy_state(state)
            assert copy[0].sharding == state[0].sharding
            expected = step([*copy_state(copy)])
            state = step(state)
            assert np.array_equal(expected[0], state[0])
            assert not copy[0].is_deleted()
