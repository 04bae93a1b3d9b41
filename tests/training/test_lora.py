"""LoRA: W plus the scaled product of its factors, their gradients, their start and their FLOPs."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest

from harness.training.trainable.lora import lora_product
from harness.training.trainable.trainable_model import make_trainable
from tests.training.finetuning import EXPERTS, METHODS, model_of
from tests.training.runs import init_params


def filled(trainable):
    """The trainable's start with factors that are not zero."""
    rng = np.random.default_rng(3)
    start = init_params(trainable, 0)
    for path in start:
        if path.startswith("lora."):
            start[path] = 0.2 * rng.normal(size=start[path].shape).astype(np.float32)
    return start


@pytest.mark.parametrize(
    "overrides",
    [(), *(pytest.param(each, marks=pytest.mark.slow) for each in (("compute.scan_layers=true",), EXPERTS))],
)
def test_lora_is_the_model_of_w_plus_the_scaled_product_and_its_gradients_follow(overrides):
    config, model = model_of(*METHODS["lora"], *overrides)
    trainable, scale = make_trainable(config, model), 6 / 2
    params = filled(trainable)
    tokens_BT1: Any = np.random.default_rng(1).integers(0, 257, (2, 33))
    by_hand, lead = dict(params), {}
    for path in trainable.lora_factors:
        a, b = params[f"lora.{path}.a"], params[f"lora.{path}.b"]
        lead[path] = model.stored_specs[path].axes[0] in ("layers", "experts")
        layer = zip(a, b, strict=True) if lead[path] else [(a, b)]
        each = [scale * np.tensordot(one, other, axes=1) for one, other in layer]
        by_hand[path] = params[path] + (np.stack(each) if lead[path] else each[0])
    plain: Any = {path: by_hand[path] for path in model.stored_specs}
    wanted, full = jax.jit(jax.value_and_grad(lambda p: model.loss(p, tokens_BT1, 0.0)[0]))(plain)
    found, grads = jax.jit(jax.value_and_grad(lambda p: trainable.loss(p, tokens_BT1, 0.0)[0]))(params)
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
    for path in trainable.lora_factors:
        a, b, dw = params[f"lora.{path}.a"], params[f"lora.{path}.b"], np.asarray(full[path])
        rank, stacks = 2, a.shape[0] if lead[path] else 1
        rows = math.prod(a.shape) // (rank * stacks)
        dw = dw.reshape(stacks, rows, -1)
        da = scale * dw @ b.reshape(stacks, rank, -1).swapaxes(1, 2)
        db = scale * a.reshape(stacks, rows, rank).swapaxes(1, 2) @ dw
        np.testing.assert_allclose(grads[f"lora.{path}.a"], da.reshape(a.shape), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(grads[f"lora.{path}.b"], db.reshape(b.shape), rtol=1e-3, atol=1e-5)


def test_every_hidden_matrix_has_factors_and_nothing_else_has():
    config, model = model_of(*METHODS["lora"])
    matrices = {
        path for path, spec in model.stored_specs.items() if len(spec.shape) > 1 and path != "embedding"
    }
    assert make_trainable(config, model).lora_factors.keys() == matrices


def test_the_product_of_the_factors_is_what_x_a_b_would_add():
    rng = np.random.default_rng(0)
    x_ND, a, b = (rng.normal(size=shape) for shape in ((5, 8), (8, 2), (2, 3, 4)))
    weight: Any = lora_product(a, b, ("width", None), (None, "heads", None))
    np.testing.assert_allclose(
        np.tensordot(x_ND, weight, 1), np.tensordot(x_ND @ a, b, 1), rtol=1e-4, atol=1e-5
    )


def test_at_full_rank_one_factor_learns_what_the_matrix_would():
    """With a = 1 (all of W's inputs are the rank) and alpha = rank, the gradient of b is that of W."""
    config, model = model_of("finetune.method=lora", "finetune.rank=16", "finetune.alpha=16")
    trainable = make_trainable(config, model)
    assert model.shape.width == 16
    params = init_params(trainable, 0)
    path = "layers.0.feedforward.up"
    params[f"lora.{path}.a"] = np.eye(16, dtype=np.float32)
    tokens_BT1 = np.random.default_rng(1).integers(0, 257, (2, 33))
    grads = jax.jit(jax.grad(lambda p: trainable.loss(p, tokens_BT1, 0.0)[0]))(params)
    np.testing.assert_allclose(grads[f"lora.{path}.b"], grads[path], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layers", ["unrolled", "scanned"])
def test_factors_are_drawn_by_seed_and_path_however_layers_are_stored(layers):
    config, model = model_of(*METHODS["lora"], f"compute.scan_layers={layers == 'scanned'}")
    start = init_params(make_trainable(config, model), 5)
    name = "lora.layers.1.attention.query.a"
    if layers == "scanned":
        found = start["lora.repeats.0.attention.query.a"][1]
        alone = init_params(make_trainable(*model_of(*METHODS["lora"])), 5)
        assert np.array_equal(found, alone[name])
        assert not start["lora.repeats.0.attention.query.b"].any()
    else:
        assert start[name].std() == pytest.approx(1 / math.sqrt(model.shape.width), rel=0.3)
        assert not np.array_equal(start[name], start["lora.layers.0.attention.query.a"])


def test_flops_of_lora_leave_out_the_gradients_that_nobody_asks_for():
    config, model = model_of(*METHODS["lora"])
    trainable, shape = make_trainable(config, model), model.shape
    executed_head = 2.0 * shape.width * model.spec.table_rows
    first_inputs = 3 * 2.0 * shape.width * shape.heads * shape.head_width
    merging = sum(
        3 * 2 * 2 * spec.size for path, spec in model.stored_specs.items() if path in trainable.lora_factors
    )
    wanted = model.executed_flops_per_token - executed_head - first_inputs + merging / (8 * 32)
    assert trainable.executed_flops_per_token(8) == pytest.approx(wanted, rel=1e-12)
    matrices = sum(spec.size for path, spec in model.stored_specs.items() if path in trainable.lora_factors)
    saved = 2.0 * shape.width * shape.vocabulary + 2 * matrices
    assert trainable.flops_per_token == pytest.approx(
        model.flops_per_token - saved + 6 * trainable.num_trainable
    )
