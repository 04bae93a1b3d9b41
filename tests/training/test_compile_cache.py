"""Compiled programs in the cache: stored without pickle, proved before they are loaded, keyed by text."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import NamedSharding

import harness
from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from harness.training.programs import compile_cache, stored_executable
from harness.training.programs.compile_cache import LoweredProgram, compile_or_load


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path))


@pytest.fixture
def compiled(monkeypatch):
    """Names of the programs that were compiled, not loaded."""
    names = []

    def compile_lowered(lowered, devices):
        if stored_executable._stored.get() is None:
            names.append("compiled")
        return lowered.compile(device_assignment=tuple(devices))

    monkeypatch.setattr(compile_cache, "compile_lowered", compile_lowered)
    monkeypatch.setattr(stored_executable, "compile_lowered", compile_lowered)
    return names


def lower(devices, width=2, factor=1.0):
    """x -> tanh(x) * sum(x) over a data-sharded x, over a mesh without devices."""
    mesh = abstract_mesh(MeshConfig(data=len(devices)))
    shape = jax.ShapeDtypeStruct((8, width), jnp.float32, sharding=NamedSharding(mesh, P("data", None)))
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(lambda x: jnp.tanh(x) * jnp.sum(factor * x, keepdims=True)).trace(shape)
        return LoweredProgram("double", traced.lower(lowering_platforms=("cpu",)))


def double(devices, notes=None, cached=True, **options):
    notes = [] if notes is None else notes
    program = compile_or_load(lower(devices, **options), devices, cached=cached, note=notes.append)
    width = options.get("width", 2)
    sharding = NamedSharding(lane_mesh(devices, MeshConfig(data=len(devices))), P("data", None))
    values = np.arange(8 * width, dtype=np.float32).reshape(8, width) / 7
    return program(jax.device_put(values, sharding))


def entry(tmp_path):
    (path,) = (tmp_path / "programs").glob("double-*")
    return path


@pytest.mark.parametrize("count", [1, 2])
def test_a_stored_program_runs_on_other_devices_with_the_same_bits(count, compiled):
    devices = jax.devices()
    first = double(devices[:count])
    second = double(devices[4 : 4 + count])
    assert compiled == ["compiled"]
    assert second.sharding.device_set == set(devices[4 : 4 + count])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.99])
def test_one_flipped_bit_is_told_and_compiled_again(place, tmp_path, compiled):
    expected, notes = double(jax.devices()[:1]), []
    path = entry(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    assert np.array_equal(double(jax.devices()[1:2], notes), expected)
    assert len(compiled) == 2
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert "damaged" in notes[0]
    double(jax.devices()[2:3], notes)
    assert len(compiled) == 2, "the entry was made again"
    assert len(notes) == 1


def test_an_entry_of_another_machine_or_user_is_not_loaded(tmp_path, compiled):
    double(jax.devices()[:1])
    (tmp_path / "key").unlink()  # whoever wrote the entry had another key
    notes = []
    double(jax.devices()[:1], notes)
    assert len(compiled) == 2
    assert len(notes) == 1


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_pickle_in_the_cache_does_not_run(tmp_path, monkeypatch, compiled):
    monkeypatch.chdir(tmp_path)
    double(jax.devices()[:1])
    entry(tmp_path).write_bytes(pickle.dumps(Attack()))
    double(jax.devices()[:1])
    assert len(compiled) == 2
    assert not (tmp_path / "attacked").exists()


def test_no_file_of_the_harness_unpickles():
    home = Path(harness.__file__).parent
    unpickles = re.compile(r"import pickle|from pickle|pickle\.load|allow_pickle=True|read_pickle")
    offenders = [path for path in home.rglob("*.py") if unpickles.search(path.read_text())]
    assert offenders == []


def test_another_text_is_another_program(compiled):
    double(jax.devices()[:1])
    double(jax.devices()[:1], width=3)
    double(jax.devices()[:1], factor=2.0)
    assert len(compiled) == 3


def test_a_variable_that_compilers_read_is_part_of_the_key(monkeypatch, compiled):
    double(jax.devices()[:1])
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    double(jax.devices()[:1])
    assert len(compiled) == 1
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    double(jax.devices()[:1])
    assert len(compiled) == 2


def test_without_the_cache_nothing_is_read_or_stored(tmp_path, compiled):
    double(jax.devices()[:1], cached=False)
    assert not [*(tmp_path / "programs").glob("double-*")]
    double(jax.devices()[:1])
    double(jax.devices()[:1], cached=False)
    assert len(compiled) == 3


def test_where_loading_fails_it_is_told_and_compiled(monkeypatch, compiled):
    double(jax.devices()[:1])

    def broken(*_):
        raise AttributeError("jax moved its private functions")

    monkeypatch.setattr(compile_cache, "load_executable", broken)
    notes = []
    double(jax.devices()[1:2], notes)
    assert len(compiled) == 2
    assert "cannot be loaded (AttributeError)" in notes[0]


def test_the_private_function_of_jax_is_still_there():
    from jax._src import compiler
    from jax._src.interpreters import pxla

    assert compiler.compile_or_get_cached is stored_executable._load_or_compile
    assert "compiler.compile_or_get_cached(" in Path(pxla.__file__).read_text()


def test_a_cache_that_others_can_write_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(UserError, match=r"other users can write .*chmod -R go-w .* AB_HARNESS_CACHE=FOLDER"):
        double(jax.devices()[:1])
    tmp_path.chmod(0o700)


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


def test_a_loaded_program_is_not_stored_again(compiled):
    """XLA would write it without its kernels, and every process that loads that fails."""
    devices = jax.devices()[:1]
    double(devices)
    program = lower(devices)
    compile_or_load(program, devices)
    entry = program.entry(devices)
    entry.remove()
    compile_or_load(program, devices)  # JAX remembers what it has loaded for this lowering
    assert np.all(np.isfinite(double(devices))), "what lies in the cache cannot be run"
