"""Each optimizer against plain numpy; the same on split and stacked parameters; decay where it belongs."""

import dataclasses
import hashlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import P

from harness.config.compose import compose
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import DataConfig
from harness.config.schema.finetune import FinetuneConfig
from harness.config.schema.run import (
    ComputeConfig,
    Config,
    MatchBy,
    ModelConfig,
    ModuleConfig,
    OptimizerConfig,
    OptimizerGroupConfig,
    ScaleConfig,
)
from harness.core.errors import UserError
from harness.models import Model, build
from harness.parallel.sharding.axis_rules import param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from harness.records.run.status import State
from harness.training.optimizers.matrices import Matrix, hidden_matrices
from harness.training.optimizers.muon import ADAM_RMS, COEFFICIENTS, EPSILON, orthogonalise
from harness.training.optimizers.muon import scale_by_orthogonal as scale_by
from harness.training.optimizers.optimizer_registry import Optimizer
from harness.training.run import train_run
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import TrainableModel, make_trainable
from harness.worker.describe import _state_bytes
from tests.training.processes import environment, on_one_core, printed_by
from tests.training.runs import assignment, curve, lane, prepare, stopping_at, train

RNG = np.random.default_rng


def config_of(name: str, **changes) -> OptimizerConfig:
    return OptimizerConfig(name=name, learning_rate=0.01, **changes)


def model_of(how: bool = False, **changes) -> Model:
    shape: dict[str, Any] = {"width": 16, "ffn": 24, "layers": 2, "heads": 4, "head_width": 4}
    shape |= {"match": MatchBy.none, "tie_embeddings": False, **changes}
    config = Config(
        model=ModelConfig(**shape),
        scale=ScaleConfig("tiny", 1, 1, 8),
        compute=ComputeConfig(scan_layers=how),
        data=DataConfig(sequence_length=16),
    )
    return build(config, 16)


def optimizer_of(model: Model, config: OptimizerConfig) -> Optimizer:
    """At a learning rate of -1, so that its updates are the descent directions."""
    trainable = TrainableModel(model, FinetuneConfig(), None, {})
    return trainable.build_optimizer(config).at_step(StepInputs(-1.0))


def gradients(model: Model, seed: int) -> dict[str, np.ndarray]:
    """By canonical path."""
    rng = RNG(seed)
    return {path: rng.normal(size=spec.shape).astype(np.float32) for path, spec in model.param_specs.items()}


def in_turn(grads, steps: int = 3) -> list[dict[str, np.ndarray]]:
    """The gradients of some steps: the same with their entries moved on by one each time."""
    return [{path: np.roll(grad, step, axis=-1) for path, grad in grads.items()} for step in range(steps)]


def updates(descent, each, params):
    """Of the last of some steps, from the gradients of each."""

    @jax.jit
    def run(each, params):
        state, found = descent.init(params), {}
        for grads in each:
            found, state = descent.update(grads, state, params)
        return found

    return run(each, params)


@pytest.mark.parametrize("shape", [(16, 16), (12, 40)])
def test_the_iteration_is_the_published_one(shape):
    x_NIO = RNG(0).normal(size=(3, *shape)).astype(np.float32)
    a, b, c = 3.4445, -4.7750, 2.0315
    for x, found in zip(x_NIO.astype(np.float64), orthogonalise(jnp.asarray(x_NIO), 5), strict=True):
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        np.testing.assert_allclose(found, x, atol=2e-5)
    assert (a, b, c, 1e-7) == (*COEFFICIENTS, EPSILON)


def test_it_comes_as_near_to_the_orthogonal_factor_as_its_singular_values():
    """U S' V^T with S' on the plateau of the published quintic, which is not 1."""
    x = RNG(1).normal(size=(12, 40)).astype(np.float32)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    found = np.asarray(orthogonalise(jnp.asarray(x)[None], 5))[0]
    inner = left.T @ found @ right.T
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-4
    assert np.linalg.norm(found - left @ right, 2) < 0.35


def test_matrices_are_those_of_the_products_a_layer_each():
    """Query D x HK, output HK x D; each direction is that of its own matrix alone, sized as Adam's."""
    loop, scan = model_of(), model_of(True)
    assert scan.stacking.repeats == 2
    grads = gradients(loop, 2)
    for model in (loop, scan):
        found = model.unstack(updates(scale_by(hidden_matrices(model), 5), [model.stack(grads)], None))
        for leaf, shape in {
            "attention.query": (16, 16),
            "attention.output": (16, 16),
            "feedforward.gate": (16, 24),
            "feedforward.down": (24, 16),
        }.items():
            path = f"layers.1.{leaf}"
            matrix = grads[path].reshape(shape)
            tall = shape[0] > shape[1]
            plain = orthogonalise(jnp.asarray(matrix.T if tall else matrix)[None], 5)[0]
            expected = ADAM_RMS * np.sqrt(max(shape)) * np.asarray(plain.T if tall else plain)
            np.testing.assert_allclose(found[path].reshape(shape), expected, rtol=1e-3, atol=1e-4)
            assert np.sqrt(np.mean(np.square(found[path]))) == pytest.approx(ADAM_RMS, rel=0.15)
        for path in ("embedding", "head", "norm.gain", "layers.0.attention.query_norm.gain"):
            np.testing.assert_array_equal(found[path], grads[path])


def test_stacks_of_other_heights_are_iterated_together():
    """Two layers in a stack, one beside it, one on end: each as if it were alone; split as they came."""
    shapes = {"repeats.0.a": (2, 8, 12), "layers.0.a": (8, 12), "layers.0.b": (12, 8)}
    matrices = {path: Matrix(shape[-2], shape[-1], 1.0) for path, shape in shapes.items()}
    grads = {path: np.float32(RNG(9).normal(size=shape)) for path, shape in shapes.items()}
    found = updates(scale_by(matrices, 5), [grads], None)
    for path, grad in grads.items():
        alone = updates(scale_by({path: matrices[path]}, 5), [{path: grad}], None)
        np.testing.assert_allclose(found[path], alone[path], atol=1e-5)
    with jax.set_mesh(lane_mesh(jax.devices()[:4], MeshConfig(1, 2, 2))):
        placed = {
            path: jax.device_put(grad, P(*(None,) * (grad.ndim - 2), "fsdp", "tensor"))
            for path, grad in grads.items()
        }
        split = updates(scale_by(matrices, 5), [placed], None)
    assert all(split[path].sharding == placed[path].sharding for path in shapes)


def test_query_and_output_of_other_sides_are_told_apart():
    matrices = hidden_matrices(model_of(heads=8, attention=ModuleConfig("gqa", {"kv_heads": 2})))
    sides = {path.removeprefix("layers.0."): (m.rows, m.columns) for path, m in matrices.items()}
    assert sides["attention.query"] == (16, 32)
    assert sides["attention.key"] == sides["attention.value"] == (16, 8)
    assert sides["attention.output"] == (32, 16)
    assert not {"embedding", "head", "norm.gain", "attention_norm.gain"} & sides.keys()


def test_muon_is_momentum_by_hand_for_matrices_and_adam_for_the_rest():
    model, config = model_of(layers=1), config_of("muon", weight_decay=0.0)
    each, params, matrices = in_turn(gradients(model, 3)), model.init(0), hidden_matrices(model)
    nesterov = {}
    for path in matrices:
        now = momentum = np.zeros_like(each[0][path])
        for step in range(3):
            now = each[step][path]
            momentum = 0.95 * momentum + now
        nesterov[path] = now + 0.95 * momentum
    expected = updates(optax.scale_by_adam(config.b1, config.b2, config.epsilon), each, params)
    expected |= updates(scale_by(matrices, 5), [nesterov], None)
    found = updates(optimizer_of(model, config), each, params)
    for path in found:
        np.testing.assert_allclose(found[path], expected[path], atol=3e-4, err_msg=path)


def test_lion_is_five_steps_of_numpy():
    config = config_of("lion", b1=0.95, b2=0.98, weight_decay=0.5)
    rng, rate, model = RNG(4), 0.01, model_of()
    start: Any = {path: jnp.asarray(array) for path, array in model.init(0).items()}
    w = np.asarray(start["embedding"])
    grads = rng.normal(size=(5, *w.shape)).astype(np.float32)
    optimizer = TrainableModel(model, FinetuneConfig(), None, {}).build_optimizer(config)
    params, state, momentum = start, optimizer.init(start), np.zeros_like(w)
    for grad in grads:
        all_grads = jax.tree.map(jnp.zeros_like, params) | {"embedding": jnp.asarray(grad)}
        updates, state = optimizer.at_step(StepInputs(rate)).update(all_grads, state, params)
        params = optax.apply_updates(params, updates)
        w = w - rate * (np.sign(0.95 * momentum + 0.05 * grad) + 0.5 * w)
        momentum = 0.98 * momentum + 0.02 * grad
    final: Any = params
    np.testing.assert_allclose(final["embedding"], w, rtol=1e-5, atol=1e-6)


def test_adamw_is_bitwise_what_it_was():
    """The state too: checkpoints of it are restored by its structure."""
    model, config = model_of(base_width=8), config_of("adamw")
    decay = {path: spec.deviation > 0 for path, spec in model.stored_specs.items()}
    scales = model.learning_rate_scales
    before = optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon),
        optax.stateless(lambda found, params: jax.tree.map(lambda u, s: u * s, found, scales)),
        optax.add_decayed_weights(config.weight_decay, mask=decay),
    )
    now, each, params = optimizer_of(model, config), in_turn(gradients(model, 5)), model.init(0)
    one, other = updates(before, each, params), updates(now, each, params)
    assert all(np.array_equal(one[path], other[path]) for path in one)
    assert jax.tree.structure(before.init(params)) == jax.tree.structure(now.init(params))


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_matrices_decay_and_gains_do_not(name):
    model = model_of()
    params, still = model.init(0), {path: np.zeros_like(p) for path, p in model.init(0).items()}
    found = updates(optimizer_of(model, config_of(name, weight_decay=0.25)), [still], params)
    for path, spec in model.param_specs.items():
        share = 0.0 if path.endswith("gain") else 0.25
        assert (spec.deviation > 0) == (share > 0)
        np.testing.assert_array_equal(found[path], np.float32(share) * params[path], err_msg=path)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_stacked_layers_learn_as_single_ones(name):
    loop, scan = model_of(base_width=8), model_of(True, base_width=8)
    each, config = in_turn(gradients(loop, 6)), config_of(name)
    one = updates(optimizer_of(loop, config), each, loop.init(0))
    stacked = [scan.stack(grads) for grads in each]
    other = scan.unstack(updates(optimizer_of(scan, config), stacked, scan.init(0)))
    near = 1e-6 if name == "muon" else 0.0  # what stands around its products is fused otherwise
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=near, atol=near / 10, err_msg=path)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_on_eight_devices_as_on_one_and_split_as_it_was(name, layers):
    model = model_of(layers)
    each = [model.stack(grads) for grads in in_turn(gradients(model, 7))]
    params = model.init(0)
    alone = updates(optimizer_of(model, config_of(name)), each, params)
    mesh = lane_mesh(jax.devices(), MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        shardings = param_shardings(mesh, model.stored_specs)
        *each, params = (jax.device_put(arrays, shardings) for arrays in (*each, params))
        found = updates(optimizer_of(model, config_of(name)), each, params)
    for path, array in found.items():
        assert array.sharding == shardings[path]
        np.testing.assert_allclose(alone[path], array, rtol=1e-5, atol=1e-5, err_msg=path)


BITS = """
import hashlib, os
from harness.core.jax_setup.cpu_flags import cpu_env
os.environ.update(cpu_env(1))
from tests.training.test_optimizers import bits
print(bits())
"""


def bits() -> str:
    """Of the directions of matrices that stand on end, large enough for products to be split over cores."""
    grads = {"tall": np.float32(RNG(8).normal(size=(4, 704, 256)))}
    found = updates(scale_by({"tall": Matrix(704, 256, 1.0)}, 5), [grads], None)
    return hashlib.sha256(np.asarray(found["tall"]).tobytes()).hexdigest()


def test_the_bits_of_muon_do_not_depend_on_cores_or_devices():
    """Both in processes of their own: this one compiles with other flags."""
    assert on_one_core("-c", BITS) == printed_by(["-c", BITS], environment())


@pytest.mark.parametrize(("name", "moments"), [("adamw", (2, 2)), ("lion", (1, 1)), ("muon", (1, 2))])
@pytest.mark.parametrize("layers", [False, True])
def test_what_it_keeps_is_counted(name, moments, layers):
    """One momentum a matrix of muon, two moments of the rest; and a counter."""
    config = compose([f"optimizer={name}", f"compute.scan_layers={str(layers).lower()}"])
    model = model_of(layers)
    of_matrix, of_rest = moments
    inside = sum(model.stored_specs[path].size for path in hidden_matrices(model))
    kept = of_matrix * inside + of_rest * (model.parameters - inside)
    state = _state_bytes(config, make_trainable(config, model))
    assert state == (4 * model.parameters, 4 * model.parameters, 4 * (kept + 1))


@pytest.mark.slow
def test_a_run_with_muon_resumes_bitwise(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, broken = (prepare(tmp_path / name, "variant=muon") for name in ("whole", "broken"))
    assert train(whole) is State.finished
    stop = threading.Event()
    first = lane(broken)
    stopped = dataclasses.replace(first, get_batch=stopping_at(14, first.get_batch, stop))
    assert train_run(assignment(broken), stopped, stop) is State.preempted
    assert train(broken, first_device=3) is State.finished
    assert curve(broken).equals(curve(whole))


def test_variants_differ_in_their_optimizer_alone():
    mha, muon, lion = (compose([f"variant={name}"]) for name in ("mha", "muon", "lion"))
    assert (mha.optimizer.name, muon.optimizer.name, lion.optimizer.name) == ("adamw", "muon", "lion")
    assert muon.model == lion.model == mha.model
    assert muon.variant.touches == lion.variant.touches == ["optimizer"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'muon'"):
        optimizer_of(model_of(), OptimizerConfig(learning_rate=0.01, name="muonn"))


def test_muon_without_matrices_is_refused():
    config = config_of("muon", groups=[OptimizerGroupConfig("embedding", "muon")])
    with pytest.raises(UserError, match="given none"):
        optimizer_of(model_of(), config)
