"""Counts in closed form are those of the models that are built."""

import dataclasses

import pytest

from harness.config.compose import compose
from harness.estimate.model_size import decoder_shape, shape_from_facts
from harness.estimate.precision import FLOAT32
from harness.worker.describe import describe
from tests.plan.shapes import frontier, llama

EXPERTS = ["variant=moe", "+model.feedforward.options.shared=1", "+model.feedforward.options.experts=4"]


@pytest.mark.parametrize(
    "overrides",
    [["scale=xs"], ["scale=s", "variant=gqa"], ["scale=xs", *EXPERTS], ["scale=xs", "variant=moe_aux"],
     ["scale=xs", "model.tie_embeddings=false", "model.qk_norm=false"]],
    ids=["mha", "gqa", "moe", "moe without a bias", "untied"],
)  # fmt: skip
def test_counts_are_those_of_the_model_that_is_built(overrides):
    config = compose(overrides)
    facts = describe(config)
    told = shape_from_facts(config, facts)
    options = config.model.feedforward.options
    counted = decoder_shape(
        name=told.name,
        layers=told.layers,
        width=told.width,
        heads=told.heads,
        kv_heads=config.model.attention.options.get("kv_heads"),
        head_width=told.head_width,
        ffn=told.ffn,
        vocabulary=told.vocabulary,
        sequence=told.sequence,
        batch=told.batch,
        tied=config.model.tie_embeddings,
        qk_norm=config.model.qk_norm,
        experts=told.experts,
        top_k=told.top_k,
        shared_experts=told.shared_experts,
        balance_bias=options.get("balance", "bias") == "bias",
        tokens=told.tokens,
    )
    alike = {
        "gathers_expert_weights": False,
        "flops_per_token": 0,
        "block": "",
        "precision": FLOAT32,
        "parameters_by_axes": (),
        "table_rows": None,
        "saved_scores": 0.0,
        "scanned": True,
        "limits": None,
    }
    assert dataclasses.replace(counted, **alike) == dataclasses.replace(told, **alike)
    assert (
        told.precision.weight_bytes + told.precision.optimizer_bytes + told.precision.gradient_bytes
        == pytest.approx(16, rel=1e-3)
    )
    assert told.block == f"{config.scale.name}/seed0"
    assert counted.flops_per_token == pytest.approx(facts.flops_per_token, rel=1e-12)
    assert told.parameters == facts.parameters == sum(count for _, count in told.parameters_by_axes)
    # Beside what is kept of each parameter, AdamW and its schedule count steps: two int32.
    assert facts.state_bytes - counted.parameters * (
        FLOAT32.weight_bytes + FLOAT32.optimizer_bytes + FLOAT32.gradient_bytes
    ) in (4, 8)


def test_large_models_have_the_parameters_that_are_published():
    assert llama().parameters == pytest.approx(405.9e9, rel=1e-3)
    sizes = {"1t_a": 1e12, "1p5t_b": 1.5e12, "6t": 6e12, "10t": 1e13}
    found = {model.name: model.parameters for model in frontier()}
    assert {name: found[name] for name in sizes} == pytest.approx(sizes, rel=0.01)
