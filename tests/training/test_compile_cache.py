from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import NamedSharding

from harness.config.schema.cluster import MeshConfig
from harness.parallel.sharding.mesh import lane_mesh
from harness.training.programs import compile_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path))


def double(devices, width=2, key="double"):
    """x -> tanh(x) @ x.T over a data-sharded x, on these devices; and an argument for it."""
    mesh = lane_mesh(devices, MeshConfig(data=len(devices)))
    sharding = NamedSharding(mesh, P("data", None))
    compiled = []

    def lower():
        compiled.append(key)
        with jax.set_mesh(mesh):
            shape = jax.ShapeDtypeStruct((8, width), jnp.float32, sharding=sharding)
            return jax.jit(lambda x: jnp.tanh(x) * jnp.sum(x, keepdims=True)).lower(shape)

    program = compile_cache.compile_or_load("double", [key, width], lower, devices)
    values = jax.device_put(np.arange(8 * width, dtype=np.float32).reshape(8, width) / 7, sharding)
    return program(values), compiled


@pytest.mark.parametrize("count", [1, 2])
def test_a_stored_program_runs_on_other_devices_with_the_same_bits(count):
    devices = jax.devices()
    first, compiled = double(devices[:count])
    second, again = double(devices[4 : 4 + count])
    assert (compiled, again) == (["double"], [])
    assert second.sharding.device_set == set(devices[4 : 4 + count])
    assert np.array_equal(first, second)


def test_a_damaged_entry_is_compiled_again(tmp_path):
    double(jax.devices()[:1])
    (path,) = (tmp_path / "programs").glob("double-*.bin")
    path.write_bytes(path.read_bytes()[:100])
    assert double(jax.devices()[:1])[1] == ["double"]
    assert double(jax.devices()[1:2])[1] == []


def test_another_key_another_program():
    double(jax.devices()[:1])
    assert double(jax.devices()[:1], width=3)[1] == ["double"]


def test_where_loading_fails_it_is_compiled(monkeypatch):
    double(jax.devices()[:1])

    def broken(self, pid):
        raise AttributeError("jax moved its private classes")

    monkeypatch.setattr(compile_cache._DeviceRemapUnpickler, "persistent_load", broken)
    assert double(jax.devices()[1:2])[1] == ["double"]


class Result:
    """Of a program; `under_way` are those that nobody fetched."""

    is_fully_addressable, under_way = True, []

    def __init__(self, value):
        self.value = value
        self.under_way.append(self)

    def __array__(self, dtype=None, copy=None):
        self.under_way.remove(self)
        return np.asarray(self.value)


@pytest.mark.parametrize("count", [0, 3, 8, 40])
def test_results_come_in_order_and_few_programs_are_under_way(count):
    most, made = 0, []
    results: Any = (Result(each) for each in range(count))
    for value in compile_cache.bounded_results(results):
        made.append(int(value))
        most = max(most, len(Result.under_way) + 1)
    assert made == list(range(count))
    assert most == min(count, 8), "32 a device is where they stall"
