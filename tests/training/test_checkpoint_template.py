"""A checkpoint written after a template is one of Orbax, and what is unusual is left to Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from orbax.checkpoint.experimental import v1 as ocp

from harness.config.schema.run import CheckpointConfig
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import Manifest, valid_steps
from harness.training.output import checkpoint_template, checkpointer, orbax_state
from harness.training.output.checkpoint_template import CheckpointTemplate, read_template
from harness.training.output.checkpointer import Checkpointer, restore

pytestmark = pytest.mark.usefixtures("own_cache")


class Moments(NamedTuple):
    mean: Any
    empty: Any


def some_state(seed: int = 0) -> Any:
    """Arrays of several shapes and dtypes, with values that compare unequal or are often left out."""
    random = np.random.default_rng(seed)
    large = jnp.asarray(random.normal(size=(40, 30)), jnp.float32).at[0, 0].set(jnp.nan).at[0, 1].set(-0.0)
    moments = Moments(jnp.asarray(random.normal(size=3), jnp.bfloat16), ())
    state = {
        "w": {"layers.0.w": large, "mask": jnp.array([True, False]), "zero": jnp.zeros((2, 2))},
        "optimizer": (moments, jnp.int32(seed)),
    }
    return jax.device_put(state, jax.devices()[0])


def abstract(state: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape, x.sharding) == (y.dtype, y.shape, y.sharding)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def manifest(step: int) -> Manifest:
    return Manifest(step, "", "", "", 0.0, {})


class Saver(Checkpointer):
    """Counts the saves of Orbax by step."""

    def __init__(self, path: Path, **options: Any):
        super().__init__(RunDir(path), CheckpointConfig(keep_last=100), **options)
        self.run, self.orbax_steps = RunDir(path), []

    def _start_save(self, state: Any, manifest: Manifest) -> Any:
        self.orbax_steps.append(manifest.step)
        return super()._start_save(state, manifest)

    def save_all(self, *states: Any) -> list[int]:
        """Save states at steps 1, 2, ...; return the steps that Orbax saved."""
        for step, state in enumerate(states, 1):
            self.save(state, manifest(step))
        self.wait()
        return self.orbax_steps


def store_content(folder: Path) -> dict[str, bytes]:
    spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder / 'state'}/"}}
    store = ts.KvStore.open(spec).result()
    return {key.decode(): store[key] for key in store.list().result()}


def other_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "ocdbt" not in str(path)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.parent.name != "d"}


def saved_at(folder: Path) -> int:
    time = ocp.checkpointables_metadata(str(folder)).commit_timestamp_nsecs
    assert time
    return time


@pytest.mark.parametrize("in_background", [True, False])
@pytest.mark.parametrize("name", ["plain", "exp[1]"])
def test_orbax_restores_the_later_saves_bit_by_bit(tmp_path, name, in_background):
    states = [some_state(seed) for seed in range(3)]
    saver = Saver(tmp_path / name / "run", in_background=in_background)
    assert saver.save_all(*states) == [1]
    assert valid_steps(saver.run) == ([1, 2, 3], [])
    (tmp_path / name).rename(tmp_path / "other")
    run = RunDir(tmp_path / "other" / "run")
    for step, state in enumerate(states, 1):
        path = str(run.checkpoint(step).absolute())
        assert_same(ocp.load_checkpointables(path, {"state": abstract(state)})["state"], state)
        assert_same(restore(run, step, abstract(state)), state)


def test_store_and_files_are_what_orbax_writes(tmp_path, monkeypatch):
    """An independent save of the same state by Orbax differs in times and in its own path only."""
    first, second = some_state(0), some_state(1)
    saver, reference = Saver(tmp_path / "run"), Saver(tmp_path / "reference")
    assert saver.save_all(first, second) == [1]
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "empty"))
    assert reference.save_all(second) == [1]
    written, expected = saver.run.checkpoint(2), reference.run.checkpoint(1)
    assert store_content(written) == store_content(expected)
    files, expected_files = other_files(written), other_files(expected)
    metadata = "_CHECKPOINT_METADATA"
    assert files.keys() == expected_files.keys()
    assert {name for name in files if files[name] != expected_files[name]} == {metadata, "commit_success.txt"}
    assert files["commit_success.txt"].decode().endswith(str(written))
    times = [saved_at(saver.run.checkpoint(step)) for step in (1, 2)]
    assert times == sorted({*times})


def test_what_is_saved_is_what_the_state_was(tmp_path):
    """A step takes over the memory of the state as soon as the call returns, and no copy is made for it."""
    step = jax.jit(lambda state: jax.tree.map(lambda x: ~x, state), donate_argnums=0)
    array = jnp.arange(2**16)
    place = array.unsafe_buffer_pointer()
    saver = Saver(tmp_path / "arrays")
    saver.save_all([array + 1])
    saver.save([array], manifest(2))
    (after,) = step([array])
    assert array.is_deleted()
    assert after.unsafe_buffer_pointer() == place
    saver.wait()
    assert saver.orbax_steps == [1]
    assert_same(restore(saver.run, 2, abstract([after])), [~after])


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "devices", "type"])
def test_another_state_is_left_to_orbax(tmp_path, change):
    state, other = some_state(0), some_state(1)
    if change == "shape":
        other["w"]["zero"] = jnp.zeros((2, 3))
    elif change == "dtype":
        other["w"]["zero"] = jnp.zeros((2, 2), jnp.int32)
    elif change == "name":
        other["w"]["null"] = other["w"].pop("zero")
    elif change == "devices":
        other = jax.device_put(other, jax.devices()[1])
    else:
        other["optimizer"] = [*other["optimizer"]]
    saver = Saver(tmp_path / "run")
    assert saver.save_all(state, other, some_state(2)) == [1, 2]
    assert_same(restore(saver.run, 2, abstract(other)), other)


@pytest.mark.parametrize("kind", ["pieces", "large", "compressed", "replicas"])
def test_a_state_in_another_form_is_left_to_orbax(tmp_path, monkeypatch, kind):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    state = {"w": jax.device_put(jnp.arange(2.0**15), jax.devices()[0])}
    if kind == "pieces":
        state = jax.device_put(state, jax.NamedSharding(mesh, jax.P("d")))
    elif kind == "replicas":
        state = jax.device_put(state, jax.NamedSharding(mesh, jax.P()))
    elif kind == "large":
        monkeypatch.setattr(checkpoint_template, "MAX_BYTES", 2**16)
    else:
        real = orbax_state._orbax_context

        def compressing(*arguments: Any) -> ocp.Context:
            context = real(*arguments)
            context.array.saving.use_compression = True
            return context

        monkeypatch.setattr(orbax_state, "_orbax_context", compressing)
    saver = Saver(tmp_path / "run")
    assert saver.save_all(state, state) == [1, 2]
    assert_same(restore(saver.run, 2, abstract(state)), state)


def test_a_checkpoint_of_other_values_is_no_template(tmp_path):
    saver = Saver(tmp_path / "run")
    saver.save_all(some_state(0))
    folder = saver.run.checkpoint(1)
    assert read_template(folder, some_state(0))
    assert read_template(folder, some_state(1)) is None
    assert read_template(folder, {"w": some_state(0)["w"]}) is None


@pytest.mark.parametrize("call", ["mkdir", "write_bytes", "commit", "rename", "manifest"])
def test_a_save_that_ends_early_leaves_no_checkpoint_and_can_be_repeated(tmp_path, monkeypatch, call):
    states = [some_state(seed) for seed in range(2)]
    saver = Saver(tmp_path / "run")
    saver.save_all(states[0])

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "commit":
            patch.setattr(checkpoint_template.ts, "Transaction", fail)
        elif call == "write_bytes":
            patch.setattr(checkpoint_template, "write_bytes", fail)
        elif call == "manifest":
            patch.setattr(checkpointer.checkpoint_manifest, "write_manifest", fail)
        else:
            patch.setattr(Path, call, fail)
        saver.save(states[1], manifest(2))
        with pytest.raises(OSError, match="No space"):
            saver.wait()
    assert valid_steps(saver.run) == ([1], [])
    saver.save(states[1], manifest(2))
    saver.wait()
    assert valid_steps(saver.run) == ([1, 2], [])
    assert_same(restore(saver.run, 2, abstract(states[1])), states[1])
    names = {path.name for path in saver.run.checkpoints.iterdir()}
    assert names == {path.name for n in (1, 2) for path in (saver.run.checkpoint(n), saver.run.manifest(n))}


def test_the_values_of_a_template_belong_to_its_structure(tmp_path):
    saver = Saver(tmp_path / "run")
    saver.save_all(some_state(0))
    template = saver._template
    assert isinstance(template, CheckpointTemplate)
    assert template.copy_values(some_state(1)) is not None
    assert template.copy_values({}) is None
