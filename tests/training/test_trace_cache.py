"""A program whose trace is known is loaded without one, with the same bits; what could come out otherwise is
not remembered."""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import harness
from harness.config.compose import compose
from harness.core import loaded_code
from harness.models import build
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from harness.training.metrics.metric_registry import METRICS, register_metric
from harness.training.programs import lowerings, open_program
from harness.training.programs.lowerings import program_key
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.traces import trace_key
from harness.training.traces.known_trace import MAX_CONSTANT_BYTES, is_repeatable
from harness.training.traces.trace_key import trace_inputs
from tests.training.runs import TINY

SMALL = (*TINY, "data=own", "data.sources.own.path=x")
NAMES = ("plain", "prints", "reads", "holds_little", "holds_much")


@pytest.fixture(autouse=True)
def as_worker(monkeypatch, tmp_path):
    """The process looks as if it were a worker, no other test has read anything, and the cache is empty."""
    main_file = f"{Path(harness.__file__).parent}/__main__.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", main_file, raising=False)
    monkeypatch.setattr(loaded_code, "_outside_reads", [])
    monkeypatch.setattr(loaded_code, "_codes", [*loaded_code._codes])
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    lowerings._lowerings.clear()


@pytest.fixture(autouse=True)
def own_metrics(tmp_path):
    """Register metrics of each kind for one test."""
    (tmp_path / "numbers.txt").write_text("3")

    def metric(value):
        return lambda model, params, rows_BR: value(jnp.mean(model.token_losses(params, rows_BR), axis=1))

    def print_first(loss_B):
        jax.debug.print("{}", loss_B[0])
        return loss_B

    values = {
        "plain": lambda loss_B: loss_B,
        "prints": print_first,
        "reads": lambda loss_B: loss_B * int((tmp_path / "numbers.txt").read_text()),
        "holds_little": lambda loss_B: loss_B + np.arange(8.0, dtype=np.float32)[: len(loss_B)],
        "holds_much": lambda loss_B: loss_B + jnp.sum(np.arange(5000.0, dtype=np.float32)),
    }
    before = {**METRICS.entries}
    for name, value in values.items():
        register_metric(name, at="evaluation")(metric(value))
    yield
    METRICS.entries.clear()
    METRICS.entries.update(before)


def specs_of(*overrides, vocabulary=257):
    config = compose([*SMALL, *overrides])
    return ProgramSpecs(config, build(config, vocabulary, 256), abstract_mesh(config.mesh))


def opened(name, specs, notes=None, device=0):
    devices = jax.devices()[device : device + specs.config.mesh.devices]
    note = (notes if notes is not None else []).append
    return open_program.open_program(name, specs, devices, cached=True, note=note)


def known(tmp_path):
    return sorted((tmp_path / "cache" / "traces").glob("*"))


@pytest.fixture
def traced(monkeypatch):
    """Names of the programs that are traced."""
    names, lower = [], lowerings.lowered_program

    def note(name, *rest):
        names.append(name)
        lowerings._lowerings.clear()  # of another process
        return lower(name, *rest)

    monkeypatch.setattr(open_program, "lowered_program", note)
    return names


def values_of(specs, structure, seed=0):
    """Arrays of such specs on the devices of a lane."""
    mesh, draw = lane_mesh(jax.devices()[: specs.config.mesh.devices], specs.config.mesh), seed
    generator = np.random.default_rng(draw)

    def value(spec):
        is_float = jnp.issubdtype(spec.dtype, jnp.floating)
        drawn = generator.random(spec.shape) if is_float else generator.integers(0, 2, spec.shape)
        return jax.device_put(drawn.astype(spec.dtype), jax.NamedSharding(mesh, spec.sharding.spec))

    return jax.tree.map(value, structure)


@pytest.mark.parametrize("mesh", [(), ("mesh.data=2", "mesh.fsdp=2")])
def test_a_known_step_is_loaded_without_a_trace_and_gives_the_same_bits(mesh, traced, tmp_path):
    specs, results = specs_of(*mesh), []
    for _ in range(2):
        program = opened("step", specs)
        state, *rest = values_of(specs, specs.step_arguments)
        new_state, metrics = program(state, *rest)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params)), "donated"
        results.append(jax.tree.leaves((new_state, metrics)))
    assert traced == ["step"]
    for first, second in zip(*results, strict=True):
        assert np.asarray(first).tobytes() == np.asarray(second).tobytes()
        assert first.sharding == second.sharding


def test_every_program_is_known_after_its_first_trace(traced, tmp_path):
    specs = specs_of("finetune.method=none", "optimizer=muon")
    for name in ("init", "evaluate"):
        opened(name, specs)
        opened(name, specs_of("finetune.method=none", "optimizer=muon"), device=1)
    assert traced == ["init", "evaluate"]


def test_a_step_with_a_large_table_of_rotations_is_known_too(traced, tmp_path):
    overrides = ["data.sequence_length=256", "model.head_width=32"]
    assert MAX_CONSTANT_BYTES < 256 * 32 // 2 * 4
    for _ in range(2):
        opened("step", specs_of(*overrides))
    assert traced == ["step"]


@pytest.mark.parametrize("name", NAMES)
def test_what_could_come_out_otherwise_is_not_remembered(name, traced, tmp_path):
    specs = specs_of(f"metrics=[{{name: {name}}}]")
    for _ in range(2):
        opened("evaluate", specs)
    is_known = name in ("plain", "holds_little")
    assert len(known(tmp_path)) == is_known
    assert traced == ["evaluate"] * (1 if is_known else 2)


def test_a_process_whose_modules_have_read_something_neither_remembers_nor_asks(traced, tmp_path):
    opened("evaluate", specs_of())
    (entry,) = known(tmp_path)
    loaded_code._outside_reads.append("open numbers.txt")
    opened("evaluate", specs_of())
    opened("init", specs_of())
    assert traced == ["evaluate", "evaluate", "init"]
    assert known(tmp_path) == [entry]


@pytest.mark.parametrize("damage", ["bit", "text"])
def test_a_damaged_trace_is_told_and_made_again(damage, traced, tmp_path):
    opened("evaluate", specs_of())
    (entry,) = known(tmp_path)
    content = bytearray(entry.read_bytes())
    content[-3] ^= 1
    entry.write_bytes(content if damage == "bit" else b"{}")
    notes = []
    opened("evaluate", specs_of(), notes)
    opened("evaluate", specs_of(), notes)
    assert traced == ["evaluate"] * 2
    assert [str(entry) in note and "damaged" in note for note in notes] == [True]


def test_without_its_executable_a_known_program_is_traced(traced, tmp_path):
    opened("evaluate", specs_of())
    for path in (tmp_path / "cache" / "programs").glob("*"):
        path.unlink()
    opened("evaluate", specs_of())
    assert traced == ["evaluate"] * 2


def test_where_a_stub_cannot_be_loaded_it_is_told_and_traced(traced, monkeypatch):
    opened("evaluate", specs_of())
    notes = []

    def broken(*_):
        raise AttributeError("jax moved its private functions")

    monkeypatch.setattr(open_program, "lowered_stub", broken)
    opened("evaluate", specs_of(), notes)
    assert traced == ["evaluate"] * 2
    assert "cannot be loaded (AttributeError)" in notes[0]


def test_a_removed_program_is_traced_and_compiled_again(traced, tmp_path):
    specs = specs_of()
    opened("evaluate", specs)
    open_program.remove_stored_program("evaluate", specs, jax.devices()[:1], print)
    assert known(tmp_path) == [*(tmp_path / "cache" / "programs").glob("*")] == []
    assert traced == ["evaluate"], "the key says which it is"


INPUTS = ("step", ["a run"], {"devices": 1})


def test_the_key_has_name_run_and_devices():
    keys = [trace_inputs(*INPUTS), trace_inputs("init", *INPUTS[1:]), trace_inputs("step", ["b"], {})]
    assert all(first != second for first in keys for second in keys if first is not second)
    assert trace_inputs(*INPUTS) == keys[0]


def test_the_key_has_the_environment_but_for_places(monkeypatch):
    before = trace_inputs(*INPUTS)
    monkeypatch.setenv("TERM", "another")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert trace_inputs(*INPUTS) == before
    monkeypatch.setenv("MY_MECHANISM_WIDTH", "17")
    assert trace_inputs(*INPUTS) != before


def test_the_key_has_the_options_of_jax():
    before = trace_inputs(*INPUTS)
    with jax.default_matmul_precision("bfloat16"):
        assert trace_inputs(*INPUTS) != before


@pytest.mark.parametrize("change", ["a file of jax", "a distribution"])
def test_the_key_has_installed_packages(change, monkeypatch):
    def key():
        trace_key._hashes.clear()
        trace_key._installed_files.cache_clear()
        trace_key._installed_names.cache_clear()
        return trace_inputs(*INPUTS)

    before = key()
    assert key() == before
    if change == "a distribution":
        real = os.scandir
        monkeypatch.setattr(os, "scandir", lambda folder: [*real(folder)][:-1])
        monkeypatch.setattr(trace_key, "_CODE_SUFFIXES", trace_key._CODE_SUFFIXES)
    else:
        jax_file = Path(jax.__file__)
        lines = trace_key._file_lines
        monkeypatch.setattr(
            trace_key,
            "_file_lines",
            lambda folder: [line.replace(str(jax_file), f"{jax_file} newer") for line in lines(folder)],
        )
    assert key() != before


@pytest.mark.parametrize(
    "override",
    [
        "model.rope_base=5000", "model.tie_embeddings=false", "compute.dtype=bfloat16", "loss.z_loss=0.1",
        "optimizer.moment_dtype=bfloat16", "optimizer=lion", "scale.batch=16", "data.sequence_length=16",
        "data.mask_documents=true", "mesh.fsdp=2", "metrics=[{name: plain}]", "objective.name=mtp",
        "compute.microbatches=2", "finetune.method=full", "imports=[experiments.questions.attention]",
    ],
)  # fmt: skip
def test_the_program_key_has_what_a_program_is_made_of(override):
    config = compose([*SMALL, override])
    base = specs_of()
    changed = dataclasses.replace(base, config=config, mesh=abstract_mesh(config.mesh))
    if override.startswith(("model.", "data.")):
        changed = specs_of(override)
    arguments = jax.tree.structure(base.step_arguments) != jax.tree.structure(changed.step_arguments)
    assert program_key(changed) != program_key(base) or arguments


def test_the_program_key_has_what_only_the_data_tell():
    assert program_key(specs_of(vocabulary=300)) != program_key(specs_of())


@pytest.mark.parametrize("override", ["seed=3", "optimizer.learning_rate=0.5", "scale.tokens=20480"])
def test_runs_that_differ_in_numbers_alone_share_their_programs(override):
    assert program_key(specs_of(override)) == program_key(specs_of())


def test_a_text_with_weights_is_not_repeatable():
    weights = np.random.default_rng(0).random((64, 64), np.float32)
    lowered = jax.jit(lambda x: x @ weights).lower(jax.ShapeDtypeStruct((64,), jnp.float32))
    assert not is_repeatable(lowered.as_text())
    assert is_repeatable(jax.jit(lambda x: x @ (x * jnp.ones((64, 64)))).lower(np.ones(64)).as_text())
