"""A fine-tuned run starts as its parent ended, moves what it is to move, and nothing else."""

import dataclasses
import shutil
import threading

import jax
import numpy as np
import pytest

from harness.config.compose import compose
from harness.config.schema.finetune import FinetuneMethod
from harness.core.atomic_files import read_json
from harness.core.errors import UserError
from harness.launcher.run_directories import check_identities
from harness.launcher.runs import Run
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import valid_steps
from harness.records.run.provenance import read_provenance
from harness.records.run.status import State, read_status, write_status
from harness.training import parent_weights
from harness.training.output.checkpointer import restore
from harness.training.parent_weights import load_parent_weights, load_weights
from harness.training.run import train_run
from harness.training.step import make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import make_trainable, split_trainable
from harness.worker.describe import describe
from tests.training.finetuning import EXPERTS, METHODS, SHORT, SMALL, model_of
from tests.training.runs import assignment, curve, init_params, lane, prepare, stopping_at, train


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    run = prepare(tmp_path_factory.mktemp("parent"), *SMALL, "schedule.branches=[]")
    assert train(run) is State.finished
    return run


def child(parent, folder, method, *overrides):
    """A run that starts from `parent` and reads the same text."""
    folder.mkdir(exist_ok=True)
    text = parent.path.parents[3] / "text.txt"
    here = f"data.sources.own.path={text}", f"finetune.parent={parent.path}"
    return prepare(folder, *SMALL, *SHORT, *here, *METHODS[method], *overrides)


@pytest.fixture(
    scope="module",
    params=["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "lora")],
)
def tuned(request, parent, tmp_path_factory):
    """A finished child of each method."""
    run = child(parent, tmp_path_factory.mktemp(request.param), request.param)
    assert train(run) is State.finished, run.log.read_text()
    return run


def saved(run):
    """The state at the end of a run, on the host."""
    return jax.device_get(restore(run, valid_steps(run)[0][-1], lane(run).abstract_state()))


def losses(run, step):
    return dict(curve(run, "evals").filter(step=step).select("domain", "loss").iter_rows())


def test_before_its_first_step_a_run_scores_what_its_parent_scored_at_its_end(parent, tuned):
    before = losses(tuned, 0)
    assert before == losses(parent, 30)
    assert before
    assert curve(tuned, "evals")["step"].to_list() == [0, 8, 16]
    assert curve(tuned, "evals")["decayed"].to_list() == [False, False, True]
    assert losses(tuned, 16)["own"] < before["own"]


def test_what_rests_keeps_its_bits_and_what_learns_does_not(parent, tuned):
    start = load_weights(parent, 30, assignment(parent).config, lane(parent).model)
    trainable, end = lane(tuned).trainable_model, saved(tuned).params
    for path, weight in start.items():
        learns = trainable.trainable_paths is None or path in trainable.trainable_paths
        assert np.array_equal(weight, end[path]) is not learns, path
    assert trainable.num_trainable == sum(end[path].size for path in trainable.trainable_paths or end)


def test_moments_are_kept_of_what_learns_alone(tuned):
    trainable, state = lane(tuned).trainable_model, saved(tuned)
    shapes = sorted(state.params[path].shape for path in trainable.trainable_paths or state.params)
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert sorted(leaf.shape for leaf in moments) == sorted([*shapes, *shapes])


def test_a_probe_reads_the_merged_weights(parent, tuned):
    config, model = assignment(tuned).config, lane(tuned).model
    weights = load_weights(tuned, 16, config, model)
    assert weights.keys() == model.stored_specs.keys()
    corpus = lane(tuned).heldout["own"].tokens_NT
    scored = np.mean(jax.jit(model.token_losses)(weights, corpus))
    assert float(scored) == pytest.approx(losses(tuned, 16)["own"], abs=1e-5)


def test_resumed_without_its_parent_is_bitwise_the_same(parent, tuned, tmp_path):
    moved = RunDir(tmp_path / "sweep" / "xs" / "mha" / "seed0")
    shutil.copytree(parent.path, moved.path)
    method = assignment(tuned).config.finetune.method.value
    run = child(parent, tmp_path / "run", method, f"finetune.parent={moved.path}")
    stop = threading.Event()
    first = lane(run)
    stopped = dataclasses.replace(first, get_batch=stopping_at(11, first.get_batch, stop))
    assert train_run(assignment(run), stopped, stop) is State.preempted
    shutil.rmtree(moved.path)
    assert train(run, first_device=2) is State.finished
    assert curve(run).equals(curve(tuned))
    assert curve(run, "evals").equals(curve(tuned, "evals"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_what_moves_without_a_gradient_rests_where_its_layer_rests(method):
    config, model = model_of(*METHODS[method], *EXPERTS)
    trainable = make_trainable(config, model)
    optimizer, params = trainable.build_optimizer(config.optimizer), init_params(trainable, 0)
    tokens_MBT1 = np.random.default_rng(1).integers(0, 257, (1, 8, 33))
    step = jax.jit(make_step(trainable, config.optimizer, optimizer, trainable.trainable_paths))
    state = make_state(params, optimizer.init(split_trainable(params, trainable.trainable_paths)[0]))
    after, _ = step(state, tokens_MBT1, StepInputs(1e-3))
    biases = {path for path in params if path.endswith("bias")}
    moved = {path for path in biases if not np.array_equal(params[path], after.params[path])}
    assert len(biases) == 2
    assert moved == {
        path for path in biases if trainable.trainable_paths is None or path in trainable.trainable_paths
    }


def test_without_finetuning_the_step_is_the_one_it_was():
    config, model = model_of()
    trainable = make_trainable(config, model)
    optimizer = trainable.build_optimizer(config.optimizer)
    params = model.init(0)
    state = jax.eval_shape(lambda p: (p, optimizer.init(p)), params)
    tokens = jax.ShapeDtypeStruct((1, 8, 33), np.int32)
    texts = [
        str(jax.make_jaxpr(step)(make_state(*state), tokens, StepInputs(1.0)))
        for step in (
            make_step(model, config.optimizer, optimizer),
            make_step(trainable, config.optimizer, optimizer, None),
        )
    ]
    assert texts[0] == texts[1]


def make_state(params, moments):
    from harness.training.step import TrainState

    return TrainState(params, moments)


@pytest.mark.parametrize(
    ("one", "other"),
    [pytest.param("scanned", "unrolled", marks=pytest.mark.slow), ("unrolled", "scanned")],
)
def test_layers_may_be_stored_otherwise_than_the_parents(parent, tmp_path, one, other):
    first = parent
    if one == "scanned":
        (tmp_path / "first").mkdir()
        first = prepare(
            tmp_path / "first", *SMALL, "compute.scan_layers=true", "schedule.branches=[]", *SHORT[:1]
        )
        assert train(first) is State.finished
    run = child(first, tmp_path / "second", "lora", f"compute.scan_layers={other == 'scanned'}")
    there, here = lane(first), lane(run)
    base = assignment(run).provenance.facts.base
    assert base
    weights = load_weights(first, base["step"], there.config, there.model)
    start = jax.device_get(here.init_state(load_parent_weights(base, here)).params)
    found = here.model.unstack({path: start[path] for path in here.model.stored_specs})
    for path, weight in there.model.unstack(weights).items():
        assert np.array_equal(found[path], weight)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_parent_is_read_into_the_layout_of_its_child_without_its_moments(
    parent, tmp_path, monkeypatch, scanned
):
    run = child(parent, tmp_path, "lora", "mesh.data=2", "mesh.fsdp=2", f"compute.scan_layers={scanned}")
    requests, real = [], parent_weights.restore
    monkeypatch.setattr(
        parent_weights,
        "restore",
        lambda run, step, state, *resize: (requests.append(state), real(run, step, state, *resize))[1],
    )
    here, base = lane(run), assignment(run).provenance.facts.base
    assert base
    weights = load_parent_weights(base, here)
    (request,) = requests
    assert all(leaf is ... for leaf in jax.tree.leaves(request.optimizer))
    assert all(spec.sharding.device_set == {*here.devices} for spec in request.params.values())
    expected = here.abstract_state().params
    assert weights.keys() == here.model.stored_specs.keys()
    assert all(weights[path].sharding == expected[path].sharding for path in weights)
    whole = lane(parent).model.unstack(
        load_weights(parent, 30, assignment(parent).config, lane(parent).model)
    )
    found = here.model.unstack(jax.device_get(weights))
    assert all(np.array_equal(found[path], whole[path]) for path in whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion"])
def test_eight_devices_train_as_one_does(tmp_path, method, optimizer):
    two = ("model.heads=2", "data.tokenizer=bpe512")  # a tensor axis splits heads and vocabulary
    wide = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    (tmp_path / "first").mkdir()
    first = prepare(tmp_path / "first", *SMALL, *two, "schedule.branches=[]", *SHORT[:1])
    assert train(first) is State.finished
    ends = []
    for name, mesh in (("one", ()), ("eight", wide)):
        run = child(first, tmp_path / name, method, f"optimizer={optimizer}", *two, *mesh)
        assert train(run) is State.finished, run.log.read_text()
        ends.append(losses(run, 16)["own"])
    assert ends[0] == pytest.approx(ends[1], abs=2e-3)


@pytest.mark.slow
def test_a_step_on_eight_devices_moves_the_factors_as_on_one(parent, tmp_path):
    wide = ("mesh.data=2", "mesh.fsdp=4")
    moved = []
    for name, mesh in (("one", ()), ("eight", wide)):
        here = lane(child(parent, tmp_path / name, "lora", *mesh))
        base = assignment(RunDir(tmp_path / name / "sweep" / "xs" / "mha" / "seed0")).provenance.facts.base
        assert base
        start, batch = here.init_state(load_parent_weights(base, here)), here.put_batch(here.get_batch(0))
        state, _ = here.step(start, batch, StepInputs(1e-3))
        moved.append(jax.device_get(state.params))
    for path in moved[0]:  # a first step of Adam is 1e-3 long, whatever the gradient
        np.testing.assert_allclose(moved[0][path], moved[1][path], rtol=0, atol=1e-6 if "lora" in path else 0)


def test_flops_of_frozen_layers_are_forward_alone():
    config, model = model_of(*METHODS["frozen"])
    trainable, blueprint = make_trainable(config, model), model.spec
    head = 2.0 * model.shape.width * model.spec.table_rows
    layers = [
        (blueprint.attention.executed_flops(s) + blueprint.feedforward.executed_flops(s)).total
        for s in blueprint.contexts
    ]
    assert trainable.executed_flops_per_token(8) == sum(layers) + head + 2 * layers[-1] + head
    assert trainable.flops_per_token < model.flops_per_token


BAD = {
    "finetune.parent is not set": ("finetune.parent=null",),
    "is not a run": ("finetune.parent=/nowhere/run",),
    "no checkpoint at that step; there are": ("finetune.parent={parent}@7",),
    "embedding is [384, 16] there and [384, 32] here": ("model.width=32",),
    "has another model.*model.rope_base": ("model.rope_base=500",),
    "is not the tokenizer of finetune.parent": ("data.tokenizer=bpe512",),
    "is only for finetune.method=last_layers": ("finetune.trainable_layers=1",),
    "finetune.trainable_layers=null": ("finetune.method=last_layers",),
    "finetune.trainable_layers=9": ("finetune.method=last_layers", "finetune.trainable_layers=9"),
    "scanned layers": (
        "finetune.method=last_layers",
        "finetune.trainable_layers=1",
        "compute.scan_layers=true",
    ),
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_mistake_is_one_sentence_before_anything_is_trained(parent, tmp_path, sentence):
    overrides = [each.replace("{parent}", str(parent.path)) for each in BAD[sentence]]
    with pytest.raises(UserError, match=sentence.replace("[", r"\[")) as told:
        child(parent, tmp_path, "lora", *overrides)
    assert "\n" not in str(told.value)


def test_a_model_of_images_is_not_fine_tuned(parent):
    with pytest.raises(UserError, match="is for decoders only"):
        describe(
            compose(["model=dit", "data=digits", "finetune.method=full", f"finetune.parent={parent.path}"])
        )


def test_a_parent_that_still_trains_is_refused_but_for_a_checkpoint_that_is_named(parent, tmp_path):
    running = RunDir(tmp_path / "sweep" / "xs" / "mha" / "seed0")
    shutil.copytree(parent.path, running.path)
    write_status(running, dataclasses.replace(read_status(running), state=State.preempted))
    assert read_status(running).state is State.preempted
    with pytest.raises(UserError, match="is preempted, not finished"):
        child(parent, tmp_path / "a", "full", f"finetune.parent={running.path}")
    run = child(parent, tmp_path / "b", "full", f"finetune.parent={running.path}@24")
    assert assignment(run).provenance.facts.base["step"] == 24


@pytest.mark.slow
def test_a_parent_that_was_trained_again_makes_another_run(parent, tmp_path):
    other = RunDir(tmp_path / "sweep" / "xs" / "mha" / "seed0")
    shutil.copytree(parent.path, other.path)
    run = child(parent, tmp_path / "run", "full", f"finetune.parent={other.path}")
    config = assignment(run).config
    check_identities([Run(config, describe(config), run)])
    shutil.rmtree(other.path)
    again = prepare(tmp_path, *SMALL, "schedule.branches=[]", "seed=0", "optimizer.learning_rate=0.01")
    assert again == other
    assert train(other) is State.finished
    with pytest.raises(UserError, match="which has been trained again since"):
        check_identities([Run(config, describe(config), run)])
    assert train(run) is State.refused
    assert "changed after this run was planned" in read_status(run).message


def test_the_base_is_written_down(parent, tuned):
    base, told = read_provenance(tuned).facts.base, read_provenance(parent)
    assert base["name"] == "sweep/xs/mha/seed0@30"
    assert (base["identity"], base["step"]) == (told.identity, 30)
    assert read_json(tuned.run)["identity"] != told.identity
    assert assignment(tuned).config.finetune.method is not FinetuneMethod.none
