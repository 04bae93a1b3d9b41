"""What is planned of a model whose layers are its own: its memory from counts, and no speed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.config.compose import compose
from harness.core.errors import UserError
from harness.estimate.layouts import config_layout
from harness.estimate.model_size import shape_from_facts
from harness.estimate.ways_to_fit import layout_memory
from harness.launcher.stages.rate_lines import rate_lines
from harness.plan.plan_cluster import plan_on_cluster
from harness.records.run.provenance import Facts

FACTS = Facts(
    parameters=1_000,
    non_embedding=900,
    embedding=100,
    shape={"vocabulary": 5, "width": 0},
    flops_per_token=6_000.0,
    executed_flops_per_token=6_000.0,
    paths={"head.kernel": [10, 100]},
    state_bytes=16_000,
    activation_bytes=64_000,
    steps=10,
    tokens_per_step=160,
    data_fingerprint="data",
    eval_fingerprint="eval",
    weight_bytes=4_000,
    gradient_bytes=4_000,
    splits={"": 1_000},
)


def described(*overrides) -> Any:
    base = ("model.kind=own", "scale.batch=10", "data.sequence_length=16", *overrides)
    return SimpleNamespace(name="own", config=compose(base), facts=FACTS, tokens=1_600)


def test_its_memory_is_what_was_counted():
    run = described()
    parts = layout_memory(shape_from_facts(run.config, run.facts), config_layout(run.config))
    assert parts["weights"] == 4_000
    assert parts["activations"] == 64_000
    assert parts["logits"] <= 8 * 160


def test_its_speed_on_a_described_cluster_is_refused():
    run = described("cluster=h100x8")
    with pytest.raises(
        UserError, match=r"own: the speed of model.kind=own on a described cluster cannot be known"
    ):
        plan_on_cluster([run], run.config.cluster)


def test_no_law_of_transformers_is_held_against_its_rate():
    assert rate_lines([described("optimizer.learning_rate=1.0")]) == []
