"""State kept in bfloat16: what is rounded, how it resumes, and which other precision it is read in."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.pair_check import check_block
from harness.core.errors import UserError
from harness.inspection.replay.verify import verify
from harness.models.text import cross_entropy
from harness.parallel.sharding.mesh import abstract_mesh
from harness.records.run.checkpoint_manifest import valid_steps
from harness.records.run.status import State
from harness.training.optimizers.rounding.stored_dtypes import RoundedState
from harness.training.output.checkpointer import RestoreError, restore
from harness.training.parent_weights import load_parent_weights, load_weights
from harness.training.programs.lowerings import lowered_program
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.run import train_run
from harness.training.step import TrainState, _mean_gradient, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import make_trainable
from harness.worker.describe import _state_bytes
from tests.inspection.saved import at_start
from tests.training.finetuning import EXPERTS, METHODS, SHORT, SMALL, model_of
from tests.training.runs import assignment, curve, lane, prepare, stopping_at, train

PARAMETERS, MOMENTS = "compute.parameter_dtype=bfloat16", "optimizer.moment_dtype=bfloat16"
BOTH = (PARAMETERS, MOMENTS)
TINY = (*SMALL, "model.layers=1")
BFLOAT16 = jnp.dtype(jnp.bfloat16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    run = prepare(tmp_path_factory.mktemp("whole"), *TINY, *SHORT, *BOTH)
    assert train(run) is State.finished, run.log.read_text()
    return run


def state_of(run, step: int = 16):
    return restore(run, step, lane(run).abstract_state())


def test_matrices_are_kept_in_bfloat16_and_vectors_in_float32(run):
    state = state_of(run)
    for path, param in state.params.items():
        assert param.dtype == (jnp.float32 if path.endswith("gain") else BFLOAT16), path
    adam = state.optimizer.inner[0]
    assert {path: leaf.dtype for path, leaf in adam.mu.items()} == {
        path: leaf.dtype for path, leaf in state.params.items()
    }
    assert (int(state.optimizer.step), int(state.optimizer.seed)) == (16, 0)
    experts = specs_of(PARAMETERS, *EXPERTS).state.params
    assert experts["layers.0.feedforward.bias"].dtype == jnp.float32  # it moves by less than a bfloat16 step


def test_it_resumes_bitwise(run, tmp_path):
    broken, stop = prepare(tmp_path, *TINY, *SHORT, *BOTH), threading.Event()
    first = lane(broken)
    stopped = dataclasses.replace(first, get_batch=stopping_at(6, first.get_batch, stop))
    assert train_run(assignment(broken), stopped, stop) is State.preempted
    assert train(broken, first_device=3) is State.finished
    assert curve(broken).equals(curve(run))
    one, other = (jax.tree.leaves(jax.device_get(state_of(each))) for each in (run, broken))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_a_replay_of_it_is_bitwise_equal(run):
    replay = verify(run.path)
    assert replay.equal == replay.last - replay.first > 0
    assert not any(state.differing for state in replay.states)


def test_other_precision_reads_its_weights_and_not_its_state(run, tmp_path):
    weights = load_weights(run, 16, assignment(run).config, lane(run).model)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(weights[path], kept) for path, kept in state_of(run).params.items())
    for index, (changes, key) in enumerate(
        [((), "params/embedding"), ((PARAMETERS,), "optimizer/0/mu/embedding")]
    ):
        (tmp_path / str(index)).mkdir()
        other = lane(prepare(tmp_path / str(index), *TINY, *SHORT, *changes)).abstract_state()
        with pytest.raises(RestoreError, match=f"{key} in bfloat16, and this run keeps it in float32. Set"):
            restore(run, 16, other)


@pytest.mark.parametrize(("theirs", "ours"), [((), BOTH), pytest.param(BOTH, (), marks=pytest.mark.slow)])
def test_a_parent_is_rounded_to_the_nearest_value_and_a_note_says_so(tmp_path, theirs, ours):
    (tmp_path / "child").mkdir()
    parent = at_start(tmp_path, *TINY, *theirs)
    text = f"data.sources.own.path={tmp_path / 'text.txt'}"
    start = (f"finetune.parent={parent.path}@0", *METHODS["full"], *ours)
    child = prepare(tmp_path / "child", *TINY, *SHORT, text, *start)
    notes: list[str] = []
    here = dataclasses.replace(lane(child), note=notes.append)
    base = assignment(child).provenance.facts.base
    assert base
    found = load_parent_weights(base, here)
    for path, array in state_of(parent, 0).params.items():
        assert found[path].dtype == here.trainable_model.dtypes[path]
        assert np.array_equal(found[path], np.asarray(array).astype(found[path].dtype))
    assert [note.partition(" bfloat16")[0] for note in notes] == [
        "the parent's weights are float32 and were rounded to the nearest"
    ] * bool(ours)


def specs_of(*overrides) -> ProgramSpecs:
    config, model = model_of("model.layers=1", *overrides)
    return ProgramSpecs(config, model, abstract_mesh(config.mesh))


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
@pytest.mark.parametrize("method", ["", pytest.param("lora", marks=pytest.mark.slow)])
def test_every_optimizer_keeps_its_moments_so(name, method):
    state = specs_of(f"optimizer={name}", *BOTH, *METHODS.get(method, ())).state
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state.optimizer.inner) if len(leaf.shape) > 1}
    assert dtypes == {BFLOAT16}
    assert isinstance(state.optimizer, RoundedState)
    alone = specs_of(f"optimizer={name}", PARAMETERS).state
    assert {leaf.dtype for leaf in jax.tree.leaves(alone.optimizer.inner) if leaf.ndim} == {
        jnp.dtype("float32")
    }


@pytest.mark.slow
def test_a_step_goes_to_a_neighbour_of_where_float32_goes():
    """The loss is the same bit by bit, and the norm within the rounding of the gradient."""
    tokens_MBT1: Any = np.random.default_rng(0).integers(0, 257, (1, 8, 33), dtype=np.int32)
    ends = []
    for overrides in (BOTH, ()):
        config, model = model_of("model.layers=1", *overrides)
        trainable = make_trainable(config, model)
        optimizer = trainable.build_optimizer(config.optimizer)
        rounded = make_trainable(*model_of("model.layers=1", *BOTH)).dtypes
        start = {path: jnp.asarray(x).astype(rounded[path]) for path, x in model.init(0).items()}
        params = {path: x.astype(trainable.dtypes[path]) for path, x in start.items()}
        step = jax.jit(make_step(trainable, config.optimizer, optimizer))
        inputs = StepInputs(jnp.float32(1e-3))
        ends.append(step(TrainState(params, optimizer.init(params)), tokens_MBT1, inputs))
    (state, metrics), (exact, exact_metrics) = ends
    assert metrics[0] == exact_metrics[0]
    assert float(metrics[1]) == pytest.approx(float(exact_metrics[1]), rel=2e-3)
    moved = 0
    for path, param in state.params.items():
        wide, wanted = np.asarray(param, np.float32), np.asarray(exact.params[path])
        ulp = np.exp2(np.floor(np.log2(np.abs(wanted) + 1e-30)) - 7)
        assert (np.abs(wide - wanted) <= (ulp * 1.01 if param.dtype == BFLOAT16 else 1e-5)).all(), path
        moved += np.sum(wide > wanted) * (param.dtype == BFLOAT16)
    assert 0.4 < moved / sum(p.size for p in state.params.values()) < 0.6


def test_micro_batches_are_summed_in_float32():
    config, model = model_of(PARAMETERS)
    trainable = make_trainable(config, model)
    params = {
        path: jax.ShapeDtypeStruct(s.shape, trainable.dtypes[path])
        for path, s in trainable.stored_specs.items()
    }
    gradient = jax.value_and_grad(lambda p, t, clock: trainable.loss(p, t, 0.0), has_aux=True)
    for count in (1, 4):
        tokens = jax.ShapeDtypeStruct((count, 2, 33), jnp.int32)
        _, grads = jax.eval_shape(lambda p, t: _mean_gradient(gradient, p, t, None, None), params, tokens)
        assert {leaf.dtype for leaf in grads.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (EXPERTS, METHODS["lora"], ("compute.scan_layers=true",))
        ),
    ],
)
def test_a_loss_in_pieces_takes_such_a_table(monkeypatch, overrides):
    monkeypatch.setattr(cross_entropy, "needs_pieces", lambda tokens, vocabulary: True)
    monkeypatch.setattr("harness.models.text.text_model.needs_pieces", lambda tokens, vocabulary: True)
    specs = specs_of(PARAMETERS, "compute.dtype=bfloat16", *overrides)
    with specs.mesh_context():
        state, metrics = jax.eval_shape(specs.step, *specs.step_arguments)
    assert {path: leaf.dtype for path, leaf in state.params.items()} == specs.trainable_model.dtypes
    assert metrics.dtype == jnp.float32


def test_a_float32_program_has_nothing_of_it():
    text = lowered_program("step", specs_of(), "cpu").lowered.as_text()
    assert "bf16" not in text
    assert "xor" not in text
    assert "xor" in lowered_program("step", specs_of(PARAMETERS), "cpu").lowered.as_text()


def test_its_bytes_are_counted():
    config, model = model_of(*BOTH)
    trainable = make_trainable(config, model)
    vectors = sum(spec.size for spec in trainable.stored_specs.values() if not spec.is_matrix)
    matrices = model.parameters - vectors
    weights = 2 * matrices + 4 * vectors
    assert _state_bytes(config, trainable) == (weights, weights, 2 * weights + 3 * 4)
    config.compute.microbatches = 2
    assert _state_bytes(config, trainable).gradients == 4 * model.parameters


def test_arms_of_other_precision_need_to_declare_it():
    configs = [
        compose(["data=own", "data.sources.own.path=x", f"variant={name}"]) for name in ("mha", "bf16_state")
    ]
    check_block(configs, "xs seed 0")
    configs[1].variant.touches.clear()
    with pytest.raises(UserError, match=r"compute\.parameter_dtype .*optimizer\.moment_dtype"):
        check_block(configs, "xs seed 0")


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, *METHODS])
@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon"])
def test_eight_devices_train_as_one_does(tmp_path, method, optimizer):
    """Within what a last bit does that tips a rounding."""
    two = ("model.heads=2", "compute.scan_layers=false", "compute.dtype=bfloat16")
    wide = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    parent, ends = None, []
    if method:
        (tmp_path / "first").mkdir()
        parent = prepare(tmp_path / "first", *SMALL, *two, "schedule.branches=[]", *SHORT[:1])
        assert train(parent) is State.finished
    for name, mesh in (("one", ()), ("eight", wide)):
        (tmp_path / name).mkdir()
        start = ()
        if parent and method:
            text = f"data.sources.own.path={tmp_path / 'first' / 'text.txt'}"
            start = (text, f"finetune.parent={parent.path}", *METHODS[method])
        run = prepare(tmp_path / name, *SMALL, *SHORT, *two, f"optimizer={optimizer}", *BOTH, *start, *mesh)
        assert train(run) is State.finished, run.log.read_text()
        ends.append(float(curve(run, "evals")["loss"][-1]))
        assert valid_steps(run)[0][-1] == 16
    assert ends[0] == pytest.approx(ends[1], abs=0.02)
