"""The closed form equals a walk over the jaxpr, exactly; the model's FLOPs equal a sum over positions."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from harness.config.schema.run import ComputeConfig, ModuleConfig, Remat
from harness.models.attention.kernels import softmax
from harness.models.counting.jaxpr import count_function_flops
from harness.models.flops import forward_flops
from tests.models.mechanisms import FEEDFORWARDS, LOCAL, MECHANISMS

QUICK = (True, Remat.dots)
"""What is tried for every mechanism; the slow tests have the rest of the product."""

EXECUTIONS = [
    pytest.param(
        name, layers, remat, marks=() if name == "mha" or (layers, remat) == QUICK else pytest.mark.slow
    )
    for name, layers, remat in itertools.product(MECHANISMS, (False, True), Remat)
]


@pytest.mark.parametrize(("name", "layers", "remat"), EXECUTIONS)
def test_executed_flops_equal_the_jaxpr(small, name, layers, remat, monkeypatch):
    monkeypatch.setattr(softmax, "SHORTEST_BLOCK", 5)
    mechanism, options = MECHANISMS[name]
    compute = ComputeConfig(scan_layers=layers, remat=remat)
    assert_counted(small(mechanism, length=32, options=options, layers=3, compute=compute), 2)


def assert_counted(model, B):
    """Forward alone, and with the gradient."""
    T = model.spec.sequence_length
    params = {
        path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in model.stored_specs.items()
    }
    tokens = jax.ShapeDtypeStruct((B, T + 1), jnp.int32)

    def loss(params, tokens):
        return model.loss(params, tokens, 1e-4)

    assert count_function_flops(loss, params, tokens) == B * T * forward_flops(model.spec)
    trained = count_function_flops(jax.value_and_grad(loss, has_aux=True), params, tokens)
    assert trained == B * T * model.executed_flops_per_token


OF_EXPERTS = [
    pytest.param(name, *how, marks=() if how == QUICK else pytest.mark.slow)
    for name in FEEDFORWARDS
    for how in itertools.product((False, True), Remat)
]


@pytest.mark.parametrize(("name", "layers", "remat"), OF_EXPERTS)
def test_executed_flops_of_experts_equal_the_jaxpr(small, name, layers, remat):
    """At the config's own batch, by which blocks are padded."""
    experts = ModuleConfig("moe", FEEDFORWARDS[name])
    compute = ComputeConfig(scan_layers=layers, remat=remat, microbatches=2)
    model = small(length=32, feedforward=experts, layers=3, compute=compute)
    assert model.spec.per_device_batch == 2
    assert_counted(model, 2)
    assert model.executed_flops_per_token > model.flops_per_token


def test_rows_that_experts_multiply(small):
    """64 assignments of two sequences in blocks of 4, the padding of 4 x 3 rows; queues of 16 each."""
    D, F = 8, 12
    blocks, queues = (
        small(
            feedforward=ModuleConfig("moe", {"experts": 4, **given}),
            layers=1,
            compute=ComputeConfig(microbatches=2),
        )
        for given in ({}, {"dispatch": "capacity", "capacity_factor": 2.0})
    )
    without = small(layers=1).executed_flops_per_token - 3 * 6 * D * F + 3 * 2 * D * 4
    assert blocks.executed_flops_per_token == without + 3 * 6 * D * F * (64 + 12) / 32
    assert queues.executed_flops_per_token == without + 3 * 6 * D * F * 4 * 16 / 16


WINDOWED = {
    "window": ("window", {"window": 4}, [4, 4, 4]),
    "pattern": ("pattern", {"cycle": [LOCAL, {"name": "mha"}]}, [4, 32, 4]),
    "gqa": ("gqa", {"kv_heads": 2}, [32, 32, 32]),
    "gated": ("gated", {"kv_heads": 2}, [32, 32, 32]),
}


@pytest.mark.parametrize(("name", "options", "windows"), WINDOWED.values(), ids=WINDOWED)
def test_model_flops_equal_a_sum_over_positions(small, name, options, windows):
    T = 32
    model = small(name, length=T, options=options)
    seen = sum(min(t + 1, window) for window in windows for t in range(T)) / T
    per_key = 4 * model.shape.heads * model.shape.head_width
    assert model.flops_per_token == pytest.approx(6 * in_products(model) + 3 * per_key * seen, rel=1e-12)


def in_products(model):
    """Parameters that are factors of a matrix product: all that is no vector."""
    return sum(spec.size for spec in model.param_specs.values() if len(spec.shape) > 1)


def test_model_flops_of_latent_and_of_linear_attention(small):
    """Keys of 4 + 2 and values of 4 for each position seen; three products with a state of 4 x 4."""
    T, heads = 32, 4
    mla = small("mla", length=T, options={"latent": 6, "rotary": 2})
    seen = 3 * sum(range(1, T + 1)) / T
    assert mla.flops_per_token == pytest.approx(6 * in_products(mla) + 3 * 2 * heads * (6 + 4) * seen)
    linear = small("gated_delta", length=T, options={"chunk": 8})
    assert linear.flops_per_token == pytest.approx(6 * in_products(linear) + 3 * 3 * heads * 3 * 2 * 4 * 4)
