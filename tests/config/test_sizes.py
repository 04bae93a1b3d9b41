"""Sizes: whole recipes by one word, after published rules, with the right precedence and plain refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.compose import compose, run_hydra, sweep_configs
from harness.config.recipes.durations import tokens_per_step
from harness.config.recipes.sizes import LARGEST_RATE, SIZES, as_scale, step_law_batch, step_law_rate
from harness.config.schema.run import Config, Precision
from harness.core.errors import UserError

DEVICES = 8


@pytest.fixture(scope="module")
def recipes() -> dict[str, Config]:
    return {name: compose([f"size={name}"]) for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_follows_the_published_rules(name, recipes):
    config = recipes[name]
    N, D = SIZES[name], 20 * SIZES[name]
    assert (config.scale.name, config.scale.parameters, config.scale.tokens) == (name, N, D)
    assert config.schedule.warmup_tokens == N
    assert step_law_batch(D) / 1.25 < tokens_per_step(config) < 1.25 * step_law_batch(D)
    assert config.model.base_width == 768 == recipes["124m"].model.width
    assert config.optimizer.learning_rate == step_law_rate(SIZES["124m"], 20 * SIZES["124m"])
    assert config.compute.dtype is Precision.bfloat16


@pytest.mark.parametrize("name", SIZES)
def test_the_rate_that_mup_carries_agrees_with_the_law_at_each_size(name, recipes):
    model = recipes[name].model
    carried = recipes[name].optimizer.learning_rate * model.base_width / model.width
    assert carried == pytest.approx(step_law_rate(SIZES[name], 20 * SIZES[name]), rel=0.16)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_divides_over_the_devices_of_a_host_and_over_every_pattern_of_layers(name, recipes):
    config = recipes[name]
    assert config.model.width == config.model.heads * config.model.head_width
    assert config.model.layers % 4 == config.model.width % DEVICES == 0
    assert config.scale.batch % (config.compute.microbatches * DEVICES) == 0


def test_the_law_is_the_published_one():
    # By hand, in logarithms of ten: 0.253 - 0.713 x 9 + 0.307 x 11, and -0.237 + 0.571 x 11.
    assert step_law_rate(1_000_000_000, 100_000_000_000) == float(f"{10**-2.787:.2g}")
    assert step_law_batch(100_000_000_000) == pytest.approx(10**6.044, rel=0.01)
    assert step_law_rate(12_500, 62_500) == LARGEST_RATE


def test_a_size_is_a_scale_and_a_ladder_its_sizes():
    assert compose(["size=350m"]) == compose(["scale=350m"])
    configs = sweep_configs(["experiment=attention", "size=ladder", "variant=mha", "seed=0"])
    assert [config.scale.name for config in configs] == ["124m", "350m", "1b", "3b"]
    assert as_scale("size=xs,ladder") == "scale=xs,124m,350m,1b,3b"
    assert as_scale("sizes=ladder") == "sizes=ladder"


def own_folder(folder: Path, group: str, text: str) -> str:
    (folder / group).mkdir(exist_ok=True)
    (folder / group / "mine.yaml").write_text(text)
    return f"hydra.searchpath=[file://{folder}]"


def test_an_experiment_may_say_size_and_the_command_line_replaces_it(tmp_path):
    search = own_folder(
        tmp_path,
        "experiment",
        "# @package _global_\nexperiment_name: mine\nrule: {control: mha}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      size: xs,124m\n      variant: mha\n",
    )
    names = [config.scale.name for config in sweep_configs([search, "experiment=mine"])]
    assert names == ["xs", "124m"]
    for word in ("size", "scale"):
        chosen = sweep_configs([search, "experiment=mine", f"{word}=s"])
        assert [config.scale.name for config in chosen] == ["s"]


def test_a_variant_changes_the_rate_relative_to_the_size_and_the_command_line_has_the_last_word():
    of = {name: compose(["size=124m", f"variant={name}"]).optimizer for name in ("adamw", "muon", "lion")}
    assert {name: optimizer.learning_rate for name, optimizer in of.items()} == pytest.approx(
        {"adamw": 2.3e-3, "muon": 2.3e-3, "lion": 0.4 * 2.3e-3}
    )
    assert compose(["size=124m", "optimizer.learning_rate=0.1"]).optimizer.learning_rate == 0.1
    assert compose(["size=124m", "schedule=looks"]).schedule.warmup_tokens == SIZES["124m"]
    finetuned = compose(["experiment=finetune", "size=124m", "variant=mha"])
    assert finetuned.optimizer.learning_rate == 3e-2, "an experiment stands above the size"
    assert compose(["size=124m", "scale.parameters=100000000"]).scale.tokens == 2_000_000_000


def test_a_scale_of_ones_own_without_a_rate_has_that_of_the_law(tmp_path):
    search = own_folder(
        tmp_path, "scale", "name: mine\nparameters: 60_000_000\ntokens: 1_200_000_000\nbatch: 64\n"
    )
    configs: list[Config] = []
    run_hydra([search, "scale=mine"], configs.append)
    assert configs[0].optimizer.learning_rate == step_law_rate(60_000_000, 1_200_000_000) == 3.1e-3


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match="scale=125m: no such choice; did you mean '124m'"):
        compose(["size=125m"])


def test_parameters_far_from_those_of_the_recipe_are_refused_with_the_size():
    message = "scale.parameters=124000000: the scale xs is a recipe for 12,500 .* Choose size=124m"
    with pytest.raises(UserError, match=message):
        compose(["scale.parameters=124000000"])
    with pytest.raises(UserError, match="Choose size=8b"):
        compose(["scale.parameters=7000000000"])
    named = compose(["scale.parameters=124000000", "scale.name=mine"])
    assert named.scale.parameters == 124_000_000
