"""A swept key becomes the variants of a comparison, or is refused with the way out."""

from __future__ import annotations

from itertools import product

import pytest

from harness.config.compose import sweep_configs
from harness.config.pair_check import undeclared_differences
from harness.config.variants.swept_keys import name_variants
from harness.core.errors import UserError


def jobs(*overrides: str) -> list[list[str]]:
    """Expand comma lists as Hydra's sweeper does."""
    texts = [
        [f"{key}={value}" for value in values.split("|")] for key, values in (o.split("=") for o in overrides)
    ]
    return [[*job] for job in product(*texts)]


def added(*overrides: str) -> list[list[str]]:
    made = jobs(*overrides)
    return [[*job[len(before) :]] for job, before in zip(name_variants(made), made, strict=True)]


def test_each_value_of_a_swept_key_is_a_variant_that_declares_it():
    first, second = sweep_configs(["optimizer.learning_rate=0.010,2e-2"])
    assert [config.variant.name for config in (first, second)] == ["learning_rate_0.01", "learning_rate_0.02"]
    assert [config.optimizer.learning_rate for config in (first, second)] == [0.01, 0.02]
    assert {config.rule.control for config in (first, second)} == {"learning_rate_0.01"}
    assert undeclared_differences(first, second) == {}


@pytest.mark.parametrize(
    ("override", "names", "node"),
    [
        ("optimizer=adamw|lion", ["optimizer_adamw", "optimizer_lion"], "optimizer"),
        (
            "model.tie_embeddings=true|false",
            ["tie_embeddings_true", "tie_embeddings_false"],
            "model.tie_embeddings",
        ),
        ("schedule.branches=[0.5]|[0.4,0.6]", ["branches_0.5", "branches_0.4_0.6"], "schedule.branches"),
        ("finetune.parent=runs/a/xs|'b c'", ["parent_runs_a_xs", "parent_b_c"], "finetune.parent"),
        ("+model.attention.options.window=8|16", ["window_8", "window_16"], "model.attention.options.window"),
        ("model.width=null|-1", ["width_null", "width_-1"], "model.width"),
        ("data.sources.code.weight=1|3", ["weight_1", "weight_3"], "data"),
    ],
)
def test_names_can_be_folders_and_the_node_is_the_key(override, names, node):
    control = f"rule.control='{names[0]}'"
    assert added(override) == [[f"variant.name='{n}'", f"variant.touches=[{node}]", control] for n in names]


def test_seeds_and_scales_are_swept_beside_it_and_a_control_of_ones_own_stays():
    made = added("scale=xs|s", "optimizer.b1=0.8|0.9", "seed=0|1", "rule.control=b1_0.9")
    assert [job[0] for job in made] == [f"variant.name='b1_{b}'" for b in (0.8, 0.8, 0.9, 0.9)] * 2
    assert {len(job) for job in made} == {2}


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0|1", "scale=xs|s", "variant=mha|hybrid", "optimizer.b1=0.9"],
        ["member=1t_a|1t_b"],
        ["optimizer.b1=0.8|0.9", "variant.name=mine"],
    ],
)
def test_sweeps_that_name_their_runs_stay_as_they_are(overrides):
    assert [*map(list, name_variants(jobs(*overrides)))] == jobs(*overrides)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["variant=mha|hybrid", "optimizer.learning_rate=1|2"],
            "learning_rate and variant both .*tune=lr tunes",
        ),
        (
            ["optimizer.b1=1|2", "optimizer.b2=1|2"],
            "b1 and optimizer.b2 both have .*conf/variant/NAME.yaml.$",
        ),
        (["optimizer.learning_rate=1|2", "tune=lr"], "tune=lr chooses it"),
        (["scale.tokens=1|2"], "conf/scale/NAME.yaml"),
        (["data_seed=0|1"], "Sweep seed instead"),
        (["mesh.data=1|2"], "a pair trains on one mesh"),
        (["engine.devices=1|2"], "does not change what a run learns"),
        (["experiment_name=a|b"], "one command trains one experiment"),
    ],
)
def test_what_cannot_be_a_variant_is_refused_with_the_way_out(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        name_variants(jobs(*overrides))
