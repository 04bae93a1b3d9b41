"""What experts need of a step: loads over all micro-batches, a bias that only loads move, numbers on disk."""

import hashlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from harness.config.compose import compose
from harness.core.errors import UserError
from harness.models import build
from harness.models.mup import learning_rate_scale
from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.status import State
from harness.training.optimizers.matrices import hidden_matrices
from harness.training.step import METRICS, TrainState, make_step
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import make_trainable
from harness.worker.describe import describe
from tests.training.runs import TINY, curve, prepare, train

EXPERTS = (
    "model.width=16",
    "model.layers=1",
    "model.heads=1",
    "model.ffn=24",
    "model.feedforward.name=moe",
    "+model.feedforward.options.experts=4",
    "+model.feedforward.options.balance_rate=0.05",
)
TOKENS_BT1: Any = np.random.default_rng(0).integers(0, 257, (8, 33), dtype=np.int32)


def one_step(microbatches, *overrides):
    config = compose([*TINY, *EXPERTS, *overrides])
    model = build(config, 257)
    optimizer = make_trainable(config, model).build_optimizer(config.optimizer)
    params = jax.tree.map(jnp.asarray, model.init(0))
    tokens = jnp.asarray(TOKENS_BT1.reshape(microbatches, -1, 33))
    step = jax.jit(make_step(model, config.optimizer, optimizer))
    return model, params, *step(TrainState(params, optimizer.init(params)), tokens, StepInputs(0.01))


@pytest.mark.slow
def test_the_bias_moves_by_the_load_of_all_micro_batches_and_by_nothing_else():
    model, params, full, told = one_step(1)
    _, _, split, same = one_step(2)
    np.testing.assert_allclose(told, same, rtol=1e-5)
    _, parts = jax.jit(lambda p: model.loss(p, TOKENS_BT1, 0.0))(params)
    values = dict(zip(METRICS, map(float, told), strict=True))
    assert values["expert_load"] == pytest.approx(
        max(float(each.load_E.max()) * 4 for each in parts["signals"].values())
    )
    assert values["expert_dropped"] == 0
    for layer, signals in parts["signals"].items():
        bias_E = 0.05 * np.sign(0.25 - np.asarray(signals.load_E))
        assert np.any(bias_E)
        for state in (full, split):
            np.testing.assert_allclose(state.params[f"{layer}.feedforward.bias"], bias_E, atol=1e-7)


def test_a_lane_writes_loads_and_drops(tmp_path):
    run = prepare(tmp_path, *EXPERTS, "+model.feedforward.options.dispatch=capacity")
    assert train(run) is State.finished
    rows = curve(run)
    assert rows["expert_load"].is_between(1, 4).all()
    assert rows["expert_dropped"].is_between(0, 1).all()
    assert cast(float, rows["expert_dropped"].max()) > 0


def test_the_width_rule_and_muon_see_one_expert():
    """As if each expert were a layer of its own; the router reads the stream."""
    wide = compose([*TINY, *EXPERTS, "model.base_width=4"])
    model = build(wide, 257)
    start = "layers.0.feedforward."
    scales = {
        name: learning_rate_scale(model.param_specs[start + name], 4.0)
        for name in ("gate", "down", "router", "bias")
    }
    assert scales == {"gate": 0.25, "down": 0.25, "router": 0.25, "bias": 1.0}
    found = hidden_matrices(model)
    assert {(found[start + name].rows, found[start + name].columns) for name in ("gate", "up")} == {(16, 24)}
    assert (found[start + "down"].rows, found[start + "down"].columns) == (24, 16)
    assert (found[start + "router"].rows, found[start + "router"].columns) == (16, 4)
    assert start + "bias" not in found


@pytest.mark.slow
def test_muon_makes_each_expert_orthogonal_alone():
    _, params, state, _ = one_step(1, "optimizer=muon", "optimizer.weight_decay=0.0")
    path = "layers.0.feedforward.gate"
    update_EDF = np.asarray(params[path] - state.params[path]) / 0.01
    for update_DF in update_EDF:
        values = np.linalg.svd(update_DF, compute_uv=False)
        values = values / (0.2 * max(update_DF.shape) ** 0.5)
        assert ((values > 0.6) & (values < 1.25)).all()


def test_experts_that_do_not_divide_over_the_mesh_are_said_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match=r"mesh.expert = 3 does not divide"):
        prepare(tmp_path, *EXPERTS, "mesh.expert=3", "scale.batch=9")


def test_parts_without_the_columns_of_experts_are_read(tmp_path):
    run = RunDir(tmp_path)
    run.metrics.mkdir(parents=True)
    row = {name: 1 for name in metrics.STEPS if not name.startswith("expert")}
    metrics.write_part(run, "steps", 2, 3, [row | {"step": 3, "expert_load": 1.5, "expert_dropped": 0.25}])
    old = metrics.write_part(run, "steps", 0, 2, [row | {"step": 1}, row | {"step": 2}])
    frame = pl.read_parquet(old.path).drop("expert_load", "expert_dropped")
    frame.write_parquet(old.path)
    sealed = hashlib.sha256(old.path.read_bytes()).hexdigest()[:16]
    old.path.rename(old.path.with_name(old.path.name.replace(old.checksum, sealed)))
    read = metrics.read_curve(run, "steps")
    assert read.schema == pl.Schema(metrics.STEPS)
    assert read["expert_load"].to_list() == [None, None, 1.5]


def test_described_are_the_parameters_that_a_token_uses():
    config = compose(["variant=moe", "scale=s"])
    facts = describe(config)
    assert facts.active_parameters < facts.non_embedding / 2
    dense = describe(compose(["scale=s"]))
    assert dense.active_parameters == dense.non_embedding
    assert facts.flops_per_token == pytest.approx(dense.flops_per_token, rel=0.005)
