"""Experts against a loop over tokens that was written without them, and against what they must equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ComputeConfig, ModuleConfig, Precision, Remat
from harness.core.errors import UserError
from harness.models.feedforward import routing
from harness.models.feedforward.dispatch import (
    block_rows,
    block_size,
    capacity_plan,
    dropless_plan,
    queue_rows,
)
from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
from harness.parallel.sharding.mesh import lane_mesh
from tests.models import reference
from tests.models.mechanisms import FEEDFORWARDS
from tests.models.reference_experts import mixture
from tests.models.test_attention import scrambled
from tests.models.test_decoder import loss_and_gradient


@pytest.fixture
def mixed(small):
    """A model with experts: options of `moe` first."""
    return lambda options, **given: small(feedforward=ModuleConfig("moe", options), **({"layers": 1} | given))


REFERENCES = {
    "bias": mixture(2),
    "auxiliary-shared": mixture(3),
    "capacity": mixture(2, capacity=8),
}
T = 16


@pytest.mark.parametrize("name", FEEDFORWARDS)
def test_logits_and_gradient_equal_a_loop_over_tokens(mixed, tokens, name):
    """Logits within float32 of float64, and the slope of their sum along one direction a parameter."""
    model, draw = mixed(FEEDFORWARDS[name]), np.random.default_rng(3)
    params, batch = scrambled(model.init(0)), tokens(2, T)
    logits_BTV, gradient = jax.jit(
        lambda p: (model.logits(p, batch), jax.grad(lambda p: jnp.sum(jnp.sin(model.logits(p, batch))))(p))
    )(params)

    def expected(params):
        attention = [reference.softmax()]
        return np.stack([reference.logits(params, row, attention, REFERENCES[name]) for row in batch])

    np.testing.assert_allclose(logits_BTV, expected(params), atol=2e-5)
    wide = {path: np.asarray(array, np.float64) for path, array in params.items()}
    for path in (path for path in params if path.startswith("layers.0.feedforward")):
        towards = draw.normal(size=wide[path].shape)
        ends = (np.sin(expected(wide | {path: wide[path] + step * towards})).sum() for step in (1e-5, -1e-5))
        slope = (next(ends) - next(ends)) / 2e-5
        assert np.sum(towards * np.asarray(gradient[path])) == pytest.approx(slope, rel=1e-3, abs=2e-3), path


def test_the_reference_drops_and_so_does_the_model(mixed, tokens):
    """Else the test above would not try it; what is told is what a count by hand finds."""
    options = FEEDFORWARDS["capacity"]
    model = mixed(options)
    params, batch = scrambled(model.init(0)), tokens(4, T + 1)
    _, parts = jax.jit(lambda p: model.loss(p, batch, 0.0))(params)
    told = parts["signals"]["layers.0"]
    assert 0 < float(told.dropped) < 0.5
    chosen = chosen_by_hand(model, params, batch[:, :-1], 2)
    counts = np.array([np.bincount(row.ravel(), minlength=4) for row in chosen])
    assert float(told.dropped) == pytest.approx(np.maximum(counts - 8, 0).sum() / chosen.size)
    np.testing.assert_allclose(told.load_E, counts.sum(0) / chosen.size)


def chosen_by_hand(model, params, tokens_BT, top_k):
    """Experts [B, T, k] of the only layer."""
    seen = []

    def record(x_TD, w):
        score = reference.sigmoid(x_TD @ w["router"]) + w["bias"]
        seen.append(np.argsort(-score, axis=1, kind="stable")[:, :top_k])
        return np.zeros_like(x_TD)

    for row in tokens_BT:
        reference.logits(params, row, [reference.softmax()], record)
    return np.array(seen)


def test_queues_with_room_for_all_equal_blocks(mixed, tokens):
    options = {"experts": 4, "shared": 1}
    blocks, queues = mixed(options), mixed(options | {"dispatch": "capacity", "capacity_factor": 2.0})
    params, batch = blocks.init(0), tokens(4, T + 1)
    (one, parts), gradient = loss_and_gradient(blocks, params, batch)
    (same, others), its = loss_and_gradient(queues, params, batch)
    assert float(one) == pytest.approx(float(same), rel=1e-6)
    assert all(float(each.dropped) == 0 for each in others["signals"].values())
    assert parts["signals"].keys() == {"layers.0"}
    for path, array in gradient.items():
        np.testing.assert_allclose(array, its[path], atol=2e-6, err_msg=path)


def test_one_expert_is_the_plain_layer(small, mixed, tokens):
    """From the same start; within float32, as the products are cut otherwise."""
    plain, one = small(layers=1), mixed({"experts": 1, "top_k": 1, "balance": "none"})
    params, batch = one.init(2), tokens(4, T + 1)
    shared = {path: params[path].reshape(spec.shape) for path, spec in plain.param_specs.items()}
    assert all(np.array_equal(array, shared[path]) for path, array in plain.init(2).items())
    (loss, _), gradient = loss_and_gradient(plain, shared, batch)
    (same, _), its = loss_and_gradient(one, params, batch)
    assert float(loss) == pytest.approx(float(same), rel=1e-6)
    for path, array in gradient.items():
        np.testing.assert_allclose(array, its[path].reshape(array.shape), atol=2e-6, err_msg=path)


@pytest.mark.parametrize("name", ["bias", "capacity"])
def test_what_follows_a_token_changes_nothing(mixed, tokens, name):
    """Nor does another sequence of the batch: not what it answers, and not who is dropped."""
    model, batch = mixed(FEEDFORWARDS[name]), tokens(2, T)
    params, other = scrambled(model.init(0)), (batch + 1) % 16
    other[0, : T // 2] = batch[0, : T // 2]
    logits = jax.jit(model.logits)
    here, there = logits(params, batch)[0, : T // 2], logits(params, other)[0, : T // 2]
    np.testing.assert_allclose(here, there, atol=1e-6)


def test_each_assignment_has_a_row_of_its_own_beside_its_expert():
    draw = np.random.default_rng(0)
    for experts, count in ((1, 7), (8, 1024)):
        chosen_A = np.minimum(draw.geometric(0.4, count) - 1, experts - 1)
        plan, owner_M = dropless_plan(jnp.asarray(chosen_A), experts)
        size = block_size(count, experts)
        assert len(plan.assignment_R) == block_rows(count, experts) <= 1.25 * count
        assert len(np.unique(plan.row_A)) == count
        assert np.array_equal(np.asarray(owner_M)[np.asarray(plan.row_A) // size], chosen_A)
        assert np.array_equal(np.asarray(plan.assignment_R)[np.asarray(plan.row_A)], np.arange(count))


def test_queues_drop_what_comes_last():
    chosen_BA = jnp.array([[0, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 0]])
    plan = capacity_plan(chosen_BA, 2, 2)
    none = 2 * 2 * 2
    # Rows of expert 0 for each sequence, then those of expert 1.
    assert plan.row_A.tolist() == [0, 4, 1, none, 5, none, 6, 7, none, none, none, 2]
    assert plan.assignment_R.tolist() == [0, 2, 11, 12, 1, 4, 6, 7]
    assert queue_rows(16, 4, 2, 1.25) == 10
    assert queue_rows(16, 2, 2, 1.25) == 16


def test_the_bias_brings_a_skewed_router_to_an_even_load():
    """And the shares stay the scores': the bias has no gradient."""
    logits_BTE = np.random.default_rng(0).normal(0, 1, (4, 64, 8)) + np.arange(8) / 4
    scores_BTE = jax.nn.sigmoid(jnp.asarray(logits_BTE))
    told_of = jax.jit(lambda bias_E: routing.route(scores_BTE, bias_E, 2))
    bias_E, uneven = jnp.zeros(8), []
    for _ in range(100):
        told = told_of(bias_E)
        uneven.append(float(told.load_E.max() * 8))
        bias_E = routing.update_router_bias(bias_E, told.load_E, 0.01)
    assert uneven[0] > 2
    assert max(uneven[-20:]) < 1.25
    slope_E = jax.grad(lambda b: jnp.sum(routing.route(scores_BTE, b, 2).share_BTK[..., 0]))(bias_E)
    assert (slope_E == 0).all()


def test_the_auxiliary_loss_is_minimised_and_not_reported(mixed, tokens):
    options = FEEDFORWARDS["auxiliary-shared"]
    even, pushed = mixed(options | {"balance": "none"}), mixed(options)
    params, batch = even.init(0), tokens(4, T + 1)
    plain, _ = jax.jit(lambda p: even.loss(p, batch, 0.0))(params)
    total, parts = jax.jit(lambda p: pushed.loss(p, batch, 0.0))(params)
    assert float(parts["loss"]) == float(plain)
    added = sum(float(each.auxiliary) for each in parts["signals"].values())
    assert float(total) == pytest.approx(float(plain) + added, rel=1e-6)
    assert 0.1 <= added < 0.11, "0.1 where the use is even"


def test_the_balance_loss_of_a_batch_is_the_mean_of_its_micro_batches():
    """Each sequence prefers another expert, so that a product of means over the batch would be even."""
    scores_BTE = jax.nn.sigmoid(
        jax.random.normal(jax.random.key(0), (8, 6, 4)) + 3 * jnp.eye(4)[jnp.arange(8) % 4, None]
    )

    def loss(scores_BTE):
        return routing.route(scores_BTE, None, 2).load_balance_loss

    gradient = jax.jit(jax.value_and_grad(loss))
    whole, slope_BTE = gradient(scores_BTE)
    parts, slopes = zip(*(gradient(scores_BTE[i : i + 2]) for i in range(0, 8, 2)), strict=True)
    assert float(whole) == pytest.approx(float(np.mean(parts)), rel=1e-6)
    np.testing.assert_allclose(slope_BTE, jnp.concatenate(slopes) / 4, rtol=1e-5, atol=1e-8)
    assert float(whole) > 1.2


def test_unevenness_is_that_of_the_paper():
    """Equations 17 to 20 of arXiv:2412.19437, by loops over one sequence."""
    scores_TE = 1 / (1 + np.exp(-np.random.default_rng(1).normal(0, 2, (12, 5)) - np.arange(5)))
    told = routing.route(jnp.asarray(scores_TE, jnp.float32)[None], None, 2)
    expected = 0.0
    for expert in range(5):
        f = 5 / (2 * 12) * sum(expert in np.argsort(-row)[:2] for row in scores_TE)
        expected += f * np.mean([row[expert] / row.sum() for row in scores_TE])
    assert float(told.load_balance_loss) == pytest.approx(expected, rel=1e-6)
    assert expected > 1.05


def assert_together_as_alone(mixed, tokens, options, compute, mesh):
    """Loss, signals and every gradient on eight devices as on one, plain, within float32 summation order."""
    plain, model = mixed(options, layers=2), mixed(options, layers=2, compute=compute)
    batch, mesh = tokens(8, T + 1), lane_mesh(jax.devices(), mesh)
    (alone, parts), gradient = loss_and_gradient(plain, plain.init(0), batch)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model.init(0), param_shardings(mesh, model.stored_specs))
        (together, others), split = loss_and_gradient(
            model, placed, jax.device_put(batch, batch_sharding(mesh, 8))
        )
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
    for name in ("load_E", "dropped"):
        one, other = (
            np.concatenate([np.ravel(getattr(each, name)) for each in told["signals"].values()])
            for told in (parts, others)
        )
        np.testing.assert_array_equal(one, other)
    for path, array in model.unstack(split).items():
        np.testing.assert_allclose(gradient[path], array, rtol=1e-4, atol=2e-5, err_msg=path)


MESHES = {"2x1x1x4": MeshConfig(2, 1, 1, 4), "1x2x2x2": MeshConfig(1, 2, 2, 2), "8": MeshConfig(8)}
TOGETHER = [
    pytest.param(
        name, layers, remat, mesh,
        marks=() if (name, layers, remat, mesh) in {
            ("capacity", True, Remat.dots, "2x1x1x4"),
        } else pytest.mark.slow,
    )
    for name in FEEDFORWARDS for layers in (False, True) for remat in Remat for mesh in MESHES
]  # fmt: skip


@pytest.mark.parametrize(("name", "layers", "remat", "mesh"), TOGETHER)
def test_scan_remat_and_eight_devices_equal_plain(mixed, tokens, name, layers, remat, mesh):
    compute = ComputeConfig(scan_layers=layers, remat=remat)
    assert_together_as_alone(mixed, tokens, FEEDFORWARDS[name], compute, MESHES[mesh])


@pytest.mark.parametrize("name", ["bias", pytest.param("capacity", marks=pytest.mark.slow)])
def test_bfloat16_is_near_float32(mixed, tokens, name):
    """Each token's loss of about 2.8 nats within 0.1; scores are float32, yet of a rounded input, so that a
    token may go elsewhere: at most one in fifty is farther off."""
    options = FEEDFORWARDS[name]
    wide, narrow = mixed(options), mixed(options, compute=ComputeConfig(dtype=Precision.bfloat16))
    params, batch = wide.init(0), tokens(4, T + 1)
    one, other = (np.asarray(jax.jit(m.token_losses)(params, batch)) for m in (wide, narrow))
    assert other.dtype == np.float32
    assert np.mean(np.abs(one - other) > 0.1) <= 0.02
    assert not np.array_equal(one, other)


MISTAKES = {
    "top_k": ({"experts": 4, "top_k": 5}, r"options.top_k=5 must be between 1 and experts=4"),
    "none chosen": ({"top_k": 0}, r"options.top_k=0 must be between"),
    "one chosen": ({"top_k": 1}, r"options.top_k=1 leaves the router without a gradient"),
    "shared": ({"shared": -1}, r"options.shared=-1 must be 0 or more"),
    "balance": ({"balance": "biass"}, r"options.balance=biass is unknown: did you mean 'bias'"),
    "rate": ({"balance_rate": -0.1}, r"options.balance_rate=-0.1 must be 0 or more"),
    "dispatch": ({"dispatch": "dropping"}, r"options.dispatch=dropping is unknown"),
    "capacity": ({"capacity_factor": 0.0}, r"options.capacity_factor=0.0 must be above 0"),
}


@pytest.mark.parametrize(("options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_said(mixed, options, said):
    with pytest.raises(UserError, match=said):
        mixed(options)


def test_experts_that_do_not_divide_are_said(mixed):
    mesh = lane_mesh(jax.devices()[:4], MeshConfig(expert=4))
    with pytest.raises(UserError, match=r"mesh.expert = 4 does not divide experts = 6: choose model.feedf"):
        param_shardings(mesh, mixed({"experts": 6}).stored_specs)


def test_active_parameters_are_those_of_the_chosen(mixed, small):
    options = {"experts": 8, "top_k": 2, "shared": 1, "balance": "none"}
    model = mixed(options)
    one = 3 * 8 * 12
    assert model.non_embedding_parameters - model.active_parameters == 6 * one
    assert model.active_parameters == small(layers=1).non_embedding_parameters + 2 * one + 8 * 8
    assert small().active_parameters == small().non_embedding_parameters
    flops = model.flops_per_token - small(layers=1).flops_per_token
    assert flops == 6 * (2 * one + 8 * 8)
