"""The socket of optimizers: what one is told and returns, groups, functions of optax, numbers that change
over a run, what is judged, and what is refused before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from polars.testing import assert_frame_equal

from harness import extend
from harness.config.compose import compose
from harness.config.schema.finetune import FinetuneConfig
from harness.config.schema.run import OptimizerConfig, OptimizerGroupConfig
from harness.core.errors import UserError
from harness.models import Model
from harness.models.step_clock import StepClock
from harness.parallel.sharding.axis_rules import param_shardings
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh
from harness.records.run.status import State
from harness.training.optimizers.optimizer_registry import OPTIMIZERS
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.output.checkpointer import restore
from harness.training.parent_weights import load_weights
from harness.training.programs.optimizer_check import check_optimizer
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.step import TrainState, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import TrainableModel, make_trainable
from tests.training.finetuning import SHORT, SMALL
from tests.training.finetuning import model_of as small_model
from tests.training.runs import assignment, curve, lane, prepare, train
from tests.training.test_optimizers import config_of, gradients, in_turn, model_of, optimizer_of, updates

PUBLISHED = (
    "ademamix", "averaged", "cautious", "muonh", "nadamw", "normuon", "schedule_free", "scion", "shampoo",
    "soap",
)  # fmt: skip
TOLD: dict[str, Any] = {}


@dataclass(frozen=True)
class PlainOptions:
    """Options of the optimizers of this file."""

    factor: float = 1.0
    switch: bool = False


@pytest.fixture
def registered():
    """Registration that ends with the test."""
    before = dict(OPTIMIZERS.entries)
    yield extend.register_optimizer
    OPTIMIZERS.entries.clear()
    OPTIMIZERS.entries.update(before)


def run_optimizer(model: Model, config: OptimizerConfig) -> RunOptimizer:
    return TrainableModel(model, FinetuneConfig(), None, {}).build_optimizer(config)


def test_an_optimizer_is_told_what_its_arguments_name(registered):
    @registered("told", PlainOptions)
    def told(parameters, options, learning_rate, progress, key, step):
        TOLD.update(progress=progress, step=step, key=key, rate=learning_rate)
        return parameters.descent(optax.identity(), learning_rate)

    model = model_of()
    optimizer = run_optimizer(model, config_of("told", weight_decay=0.0))
    assert optimizer.asks_clock
    assert not run_optimizer(model, config_of("adamw")).asks_clock
    params: Any = model.init(0)
    clock = StepClock(jnp.int32(7), jnp.float32(0.25), jnp.uint32(3))
    descent = optimizer.at_step(StepInputs(0.5, clock))
    assert (int(TOLD["step"]), float(TOLD["progress"]), TOLD["rate"]) == (7, 0.25, 0.5)
    assert jax.random.key_data(TOLD["key"]).tolist() == jax.random.key_data(clock.key(0x0B7)).tolist()
    change, _ = descent.update(params, optimizer.init(params), params, value=1.0)
    np.testing.assert_allclose(change["head"], -0.5 * params["head"])


def test_an_argument_that_nobody_gives_is_refused(registered):
    with pytest.raises(UserError, match="'asks' asks for 'progres': did you mean 'progress'"):
        registered("asks")(lambda parameters, options, learning_rate, progres: optax.identity())


def test_it_may_read_the_loss_as_those_of_optax_do(registered):
    @registered("reads_loss")
    def reads_loss(parameters, options, learning_rate):
        def update(updates, state, params=None, *, value, **extra):
            return jax.tree.map(lambda g: value * jnp.ones_like(g), updates), state

        return extend.Optimizer(lambda params: (), update)

    model = model_of()
    params: Any = model.init(0)
    descent = run_optimizer(model, config_of("reads_loss")).at_step(StepInputs(1.0))
    change, _ = descent.update(params, (), params, value=2.5)
    assert all(np.all(array == 2.5) for array in change.values())


def test_the_gradient_is_taken_where_the_optimizer_says(registered):
    """Everything at zero: all logits are equal, so the loss is the logarithm of their number."""

    @registered("at_zero")
    def at_zero(parameters, options, learning_rate):
        plain = parameters.descent(optax.identity(), learning_rate)
        return extend.Optimizer(
            plain.init, plain.update, at=lambda params, state: jax.tree.map(jnp.zeros_like, params)
        )

    config, model = small_model("model.layers=1", "optimizer.name=at_zero")
    trainable = make_trainable(config, model)
    optimizer = trainable.build_optimizer(config.optimizer)
    params = jax.tree.map(jnp.asarray, model.init(0))
    tokens: Any = np.random.default_rng(0).integers(0, 257, (1, 4, 33), dtype=np.int32)
    step = jax.jit(make_step(trainable, config.optimizer, optimizer))
    _, metrics = step(TrainState(params, optimizer.init(params)), tokens, StepInputs(jnp.float32(0.0)))
    assert float(metrics[0]) == pytest.approx(np.log(257), abs=1e-5)


def test_a_function_of_optax_is_itself_with_the_runs_rate_and_decay():
    model = model_of()
    config = config_of("optax.adamw", options={"b1": 0.8, "nesterov": True}, weight_decay=0.3)
    decay = {path: spec.decays for path, spec in model.stored_specs.items()}
    reference = optax.adamw(-1.0, b1=0.8, nesterov=True, weight_decay=0.3, mask=decay)
    each, params = in_turn(gradients(model, 1)), model.init(0)
    one, other = updates(optimizer_of(model, config), each, params), updates(reference, each, params)
    for path in one:
        np.testing.assert_allclose(one[path], other[path], atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("optax.rmsprop", optax.rmsprop(-1.0)), ("optax.scale_by_yogi", optax.scale_by_yogi())],
)
def test_what_optax_does_not_decay_the_run_does(name, reference):
    model = model_of()
    each, params = in_turn(gradients(model, 1)), model.init(0)
    one = updates(optimizer_of(model, config_of(name, weight_decay=0.3)), each, params)
    other = updates(reference, each, params)
    for path, spec in model.stored_specs.items():
        expected = other[path] + (0.3 * params[path] if spec.decays else 0)
        np.testing.assert_allclose(one[path], expected, rtol=2e-5, atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "optax.contrib.prodigi"}, "no function of optax: did you mean 'optax.contrib.prodigy'"),
        ({"name": "optax.rmsprop", "options": {"decai": 0.9}}, "decai does not exist: did you mean 'decay'"),
        ({"name": "optax.sgd", "options": {"learning_rate": 1.0}}, "learning_rate is given by the run"),
        ({"name": "optax.rmsprop", "b1": 0.5}, r"optimizer\.b1=0.5 is no option of"),
        ({"name": "soap", "ns_steps": 6}, "optimizer.ns_steps=6 is no option of optimizer.name=soap"),
        ({"name": "adamw", "options": {"b1": 0.5}}, "Set optimizer.b1=0.5 instead"),
        ({"groups": [OptimizerGroupConfig("embeding")]}, "did you mean 'embedding'"),
        ({"groups": [OptimizerGroupConfig("head", options={"b1": 0.1})]}, "needs optimizer.groups.0.name"),
        ({"groups": [OptimizerGroupConfig("embedding", "addamw")]}, "did you mean 'adamw'"),
        ({"groups": [OptimizerGroupConfig("*gain", "muonh")]}, "given none"),
        ({"name": "averaged", "options": {"inner": {"name": "schedule_free"}}}, "weights of its own"),
    ],
)  # fmt: skip
def test_a_bad_choice_is_one_sentence(changes, message):
    config = replace(config_of("adamw"), **changes)
    with pytest.raises(UserError, match=message) as refused:
        run_optimizer(model_of(), config)
    assert "\n" not in str(refused.value)


def test_a_group_of_some_layers_of_a_scan_is_refused():
    config = config_of("adamw", groups=[OptimizerGroupConfig("layers.0.*", "lion")])
    run_optimizer(model_of(), config)
    with pytest.raises(UserError, match=r"takes some layers of .* alone.* Set compute.scan_layers=false"):
        run_optimizer(model_of(True), config)


@pytest.mark.parametrize("name", ["soap", "optax.adam", "cautious"])
def test_a_rule_across_widths_that_is_not_known_is_refused(name):
    options = {"inner": {"name": "scion"}} if name == "cautious" else {}
    config = config_of(name, options=options)
    run_optimizer(model_of(), config)
    with pytest.raises(UserError, match=r"no known rule .* model\.base_width is set"):
        run_optimizer(model_of(base_width=8), config)


def test_the_first_group_that_matches_counts():
    """Each group is the optimizer of its own parameters: its rate a factor, its decay its own."""
    groups = [
        OptimizerGroupConfig("embedding", "lion", {"b1": 0.5}, learning_rate=2.0, weight_decay=0.0),
        OptimizerGroupConfig("vectors", weight_decay=0.0),
        OptimizerGroupConfig("*.feedforward.*", "muon"),
        OptimizerGroupConfig("matrices", "adamw", {"b1": 0.5}),
    ]
    model = model_of()
    each, params = in_turn(gradients(model, 1)), model.init(0)
    found = updates(optimizer_of(model, config_of("adamw", groups=groups)), each, params)

    def alone(name: str, **changes: Any) -> dict[str, np.ndarray]:
        return updates(optimizer_of(model, config_of(name, **changes)), each, params)

    expected = {
        "embedding": 2 * alone("lion", b1=0.5, weight_decay=0.0)["embedding"],
        "norm.gain": alone("adamw")["norm.gain"],
        "head": alone("adamw")["head"],
        "layers.1.feedforward.gate": alone("muon")["layers.1.feedforward.gate"],
        "layers.1.attention.query": alone("adamw", b1=0.5)["layers.1.attention.query"],
    }
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, atol=2e-5, err_msg=path)
    assert found.keys() == params.keys()


def test_numbers_of_a_step_stand_in_for_those_of_the_config():
    model = model_of()
    each, params = in_turn(gradients(model, 1)), model.init(0)
    groups = [OptimizerGroupConfig("embedding", "lion", {"b1": 0.5}, learning_rate=1.0, weight_decay=0.1)]
    values = {
        "optimizer.b1": 0.7,
        "optimizer.weight_decay": 0.4,
        "optimizer.groups.0.options.b1": 0.3,
        "optimizer.groups.0.learning_rate": 3.0,
        "optimizer.groups.0.weight_decay": 0.2,
    }
    changed = config_of("adamw", groups=groups)
    timed = run_optimizer(model, changed)

    @jax.jit
    def found(values):
        return updates(timed.at_step(StepInputs(-1.0, values=values)), each, params)

    own = [OptimizerGroupConfig("embedding", "lion", {"b1": 0.3}, learning_rate=3.0, weight_decay=0.2)]
    expected = updates(
        optimizer_of(model, config_of("adamw", b1=0.7, weight_decay=0.4, groups=own)), each, params
    )
    for path, array in found(jax.tree.map(jnp.float32, values)).items():
        np.testing.assert_allclose(array, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)
    wrapped = run_optimizer(
        model, config_of("cautious", options={"inner": {"name": "adamw", "options": {"b1": 0.5}}})
    )
    one = updates(wrapped.at_step(StepInputs(-1.0)), each, params)
    key = {"optimizer.options.inner.options.b1": jnp.float32(0.99)}
    other = updates(wrapped.at_step(StepInputs(-1.0, values=key)), each, params)
    assert not np.allclose(one["head"], other["head"])


def specs_of(*overrides: str) -> ProgramSpecs:
    config, model = small_model("model.layers=1", "model.ffn=64", "model.heads=2", *overrides)
    return ProgramSpecs(config, model, abstract_mesh(config.mesh))


MESH = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")


@pytest.mark.parametrize(
    "name", ["adamw", "lion", "muon", *PUBLISHED, "optax.contrib.prodigy", "optax.adafactor"]
)
def test_each_can_be_traced_over_a_mesh(name):
    check_optimizer(specs_of(f"optimizer.name={name}", *MESH))


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_keeps_its_state_in_bfloat16_too(name):
    both = ("compute.parameter_dtype=bfloat16", "optimizer.moment_dtype=bfloat16")
    check_optimizer(specs_of(f"optimizer.name={name}", *both))


def test_what_cannot_be_split_or_kept_is_one_sentence(registered):
    @registered("contracts")
    def contracts(parameters, options, learning_rate):
        def direction(updates, params):
            return jax.tree.map(lambda g: g * jnp.vdot(g, g), updates)

        return parameters.descent(optax.stateless(direction), learning_rate)

    @registered("grows")
    def grows(parameters, options, learning_rate):
        def update(updates, state, params=None):
            return updates, {"a": jnp.concatenate([state["a"], state["a"]])}

        return optax.GradientTransformation(lambda params: {"a": jnp.zeros(2)}, update)

    for name, message in {
        "contracts": "cannot be traced over the mesh of this run .*Write it with `per_matrix`",
        "grows": r"its state has another form than before \(\['a'\]: float32\[2\] became float32\[4\]\)",
        "optax.rprop": "has the learning rate in its first state",
        "optax.contrib.sophia": "cannot be traced",
    }.items():
        with pytest.raises(UserError, match=message) as refused:
            check_optimizer(specs_of(f"optimizer.name={name}", *MESH))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", ["normuon", "muonh", pytest.param("soap", marks=pytest.mark.slow)])
def test_matrices_of_all_layers_are_apart_on_every_mesh(name, layers):
    """Stacked or not, on one device or eight."""
    loop, model = model_of(), model_of(layers)
    each = in_turn(gradients(loop, 7))
    alone = updates(optimizer_of(loop, config_of(name)), each, loop.init(0))
    mesh = lane_mesh(jax.devices(), compose(list(MESH)).mesh)
    with jax.set_mesh(mesh):
        shardings = param_shardings(mesh, model.stored_specs)
        *placed, params = (jax.device_put(model.stack(x), shardings) for x in (*each, loop.init(0)))
        found = updates(optimizer_of(model, config_of(name)), placed, params)
    assert all(array.sharding == shardings[path] for path, array in found.items())
    for path, array in model.unstack(jax.device_get(found)).items():
        np.testing.assert_allclose(alone[path], array, rtol=2e-3, atol=2e-3, err_msg=path)


def test_an_average_is_what_a_run_is_judged_by(tmp_path):
    """Evaluated, loaded by a fine-tuning, and in the curve; the training is that of the inner optimizer."""
    (tmp_path / "plain").mkdir()
    plain = prepare(tmp_path / "plain", *SMALL, *SHORT)
    run = prepare(tmp_path, *SMALL, *SHORT, "optimizer.name=averaged")
    assert train(plain) is State.finished
    assert train(run) is State.finished, run.log.read_text()
    # Numbers of AdamW are arguments of the one step and constants of the other.
    assert_frame_equal(curve(run), curve(plain), check_exact=False, rel_tol=1e-4)
    programs, config = lane(run), assignment(run).config
    last = int(curve(run)["step"][-1])
    state = restore(run, last, programs.abstract_state())
    average = cast(Any, state.optimizer).average
    weights = load_weights(run, last, config, programs.model)
    assert all(np.array_equal(weights[path], average[path]) for path in weights)
    assert not np.array_equal(weights["embedding"], state.params["embedding"])
    judged = programs.evaluate(state)
    assert judged != lane(plain).evaluate(restore(plain, last, lane(plain).abstract_state()))
    rows = curve(run, "evals").filter(step=last)
    assert {row["domain"]: row["loss"] for row in rows.iter_rows(named=True)} == pytest.approx(
        {domain: getattr(result, "loss", result[0]) for domain, result in judged.items()}
    )
