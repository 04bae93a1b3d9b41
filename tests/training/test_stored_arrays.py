"""What is read without Orbax is what Orbax reads, and what differs is left to it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.run import CheckpointConfig
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import Manifest
from harness.training.output import checkpointer, stored_arrays
from harness.training.output.checkpointer import Checkpointer, RestoreError, restore

pytestmark = pytest.mark.usefixtures("own_cache")

STATE: Any = {
    "params": {"layers.0.w": jnp.arange(6.0).reshape(2, 3), "gain": jnp.ones(3, jnp.bfloat16)},
    "count": (jnp.int32(7), jnp.array([True, False])),
}


def abstract(state: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@pytest.fixture
def own_reads(monkeypatch) -> list[bool]:
    """Whether each restore was one without Orbax."""
    reads, real = [], checkpointer.read_arrays

    def read(*arguments):
        state = real(*arguments)
        reads.append(state is not None)
        return state

    monkeypatch.setattr(checkpointer, "read_arrays", read)
    return reads


def saved_run(tmp_path, state: Any = STATE) -> RunDir:
    run = RunDir(tmp_path / "run")
    saver = Checkpointer(run, CheckpointConfig())
    saver.save(state, Manifest(1, "", "", "", 0.0, {}))
    saver.wait()
    return run


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.sharding) == (y.dtype, y.sharding)
        assert np.array_equal(x, y)


@pytest.mark.parametrize("limit", [0, stored_arrays.MAX_BYTES])
def test_both_ways_restore_the_same_state_onto_the_same_devices(tmp_path, monkeypatch, own_reads, limit):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    state = jax.device_put(STATE, jax.NamedSharding(mesh, jax.P()))
    on_one = jax.device_put(STATE, jax.devices()[0])
    run = saved_run(tmp_path, on_one)
    monkeypatch.setattr(stored_arrays, "MAX_BYTES", limit)
    own_reads.clear()
    for target in (on_one, state):
        assert_same(restore(run, 1, abstract(target)), target)
    assert own_reads == [limit > 0] * 2


def test_an_array_in_pieces_is_left_to_orbax(tmp_path, own_reads):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    state = {"w": jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P("d")))}
    assert_same(restore(saved_run(tmp_path, state), 1, abstract(state)), state)
    assert not any(own_reads)


@pytest.mark.parametrize("change", ["fewer", "more", "shape"])
def test_another_state_than_was_saved_is_refused_as_before(tmp_path, own_reads, change):
    run, specs = saved_run(tmp_path), abstract(STATE)
    if change == "fewer":
        del specs["params"]["gain"]
    elif change == "more":
        specs["params"]["bias"] = specs["params"]["gain"]
    else:
        specs["params"]["gain"] = jax.ShapeDtypeStruct(
            (4,), jnp.bfloat16, sharding=specs["params"]["gain"].sharding
        )
    with pytest.raises(RestoreError, match="cannot be restored"):
        restore(run, 1, specs)
    assert not any(own_reads)


def test_a_restored_state_can_be_overwritten(tmp_path, own_reads):
    """It lies in memory of its own, so a step may donate it, and a second restore is not changed by that."""
    run = saved_run(tmp_path)
    own_reads.clear()
    add = jax.jit(lambda state: jax.tree.map(lambda x: x + x, state), donate_argnums=0)
    for _ in range(2):
        state = restore(run, 1, abstract(STATE))
        assert_same(state, STATE)
        add(state)
    assert own_reads == [True, True]


def test_a_value_with_another_index_is_not_taken():
    spec = jax.ShapeDtypeStruct((2,), np.float32)
    value = bytes(8) + (0).to_bytes(8, "little") + (8).to_bytes(8, "little") + bytes(4)
    decoded = stored_arrays.decode(value, spec)
    assert decoded is not None
    assert np.array_equal(decoded, np.zeros(2))
    for other in (value[:-1], value[:8] + b"\1" + value[9:], b""):
        assert stored_arrays.decode(other, spec) is None
