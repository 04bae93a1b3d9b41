"""Composition: typed, resolved, the same by every way in."""

from __future__ import annotations

import copy
import functools
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.compose import compose, config_groups, run_hydra
from harness.config.pair_check import undeclared_differences
from harness.config.run_identity import VOLATILE, config_difference, identity
from harness.config.schema.engine import Isolation, OnFailure
from harness.config.schema.run import Config
from harness.core.hashing import flatten, hash_json, is_covered_by, to_plain
from harness.records.run.config_file import read_config, write_config


def test_defaults_are_typed_and_resolved():
    config = compose(["seed=4", "engine.isolation=run", "engine.on_failure=continue"])
    assert isinstance(config, Config)
    assert (config.seed, config.data_seed) == (4, 4)
    assert config.engine.isolation is Isolation.run
    assert config.engine.on_failure is OnFailure("continue")


@functools.cache
def control(scale: str) -> Config:
    return compose([f"scale={scale}"])


@pytest.mark.parametrize("variant", config_groups()["variant"])
@pytest.mark.parametrize("scale", ["xs", "image_xs", "124m"])
def test_every_variant_differs_from_the_control_in_what_it_declares(variant, scale):
    other = compose([f"scale={scale}", f"variant={variant}"])
    assert undeclared_differences(control(scale), other) == {}


@pytest.mark.parametrize("group", ["optimizer", "schedule", "data", "cluster", "engine", "model"])
def test_every_choice_composes(group):
    made = []
    for choice in config_groups()[group]:
        own = ["data.sources.own.path=mine.txt"] if choice == "own" else []
        made.append(hash_json(compose([f"{group}={choice}", *own])))
    assert len({*made}) == len(config_groups()[group]), "two choices of one name or of one content"


def test_a_config_survives_its_file(tmp_path):
    config = compose(["variant=hybrid", "schedule.branches=[0.25,0.5]", "engine.on_failure=stop_all"])
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config


def test_private_groups_are_found_on_the_search_path(tmp_path):
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "own.yaml").write_text("# @package _global_\nvariant:\n  name: own\n")
    taken: list[Config] = []
    run_hydra([f"hydra.searchpath=[file://{tmp_path}]", "variant=own"], taken.append)
    assert taken[0].variant.name == "own"


def test_the_launcher_is_discovered_from_outside_the_repository(tmp_path):
    command = [sys.executable, "-m", "harness.train", "--info", "plugins"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "HarnessLauncher" in text


@pytest.fixture
def logging_as_before():
    """Hydra turns on the logs of this process for `--info`."""
    loggers = [logging.getLogger(), logging.getLogger("hydra")]
    before = [([*logger.handlers], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagates) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagates
        logger.setLevel(level)


@pytest.mark.parametrize("words", [["--info"], ["-m", "--info"], ["-m", "--info", "plugins"]])
@pytest.mark.usefixtures("logging_as_before")
def test_what_hydra_knows_is_shown_with_or_without_a_value_and_for_a_sweep(words, capfd):
    run_hydra(words, print)
    assert "HarnessLauncher" in capfd.readouterr().out


def test_the_environment_is_left_as_it_was():
    before = dict(os.environ)
    run_hydra([], lambda _: None)
    assert dict(os.environ) == before


LEAVES = sorted(key for key, value in flatten(Config()).items() if isinstance(value, float | int))


@given(st.sampled_from(LEAVES))
@settings(max_examples=60, deadline=None)
def test_identity_covers_every_leaf_but_the_volatile_ones(key):
    config, changed = Config(), Config()
    node, *path = key.split(".")
    target = changed
    for part in [node, *path][:-1]:
        target = getattr(target, part)
    name = key.rpartition(".")[2]
    value = getattr(target, name)
    setattr(target, name, (not value) if isinstance(value, bool) else value + 1)
    assert (identity(config) == identity(changed)) == (node in VOLATILE)
    assert [*config_difference(config, changed)] == [key]


def test_identity_knows_the_order_of_nothing_that_has_none():
    config = compose(["variant=hybrid"])
    shuffled = copy.deepcopy(config)
    shuffled.model.attention.options = dict(reversed([*config.model.attention.options.items()]))
    assert identity(shuffled) == identity(config)


def test_an_absent_leaf_is_a_difference():
    one, other = compose(["variant=short"]), compose([])
    assert ("model.attention.options.window" in config_difference(one, other)) is True
    assert config_difference(one, other).keys() == config_difference(other, one).keys()


def test_a_node_covers_what_lies_below_it_and_not_its_namesakes():
    assert is_covered_by("model.attention.name", ["model.attention"])
    assert not is_covered_by("model.attention_bias", ["model.attention"])
    assert not is_covered_by("optimizer.b1", ["model"])


def test_enums_are_plain_by_value():
    assert to_plain(Config())["engine"]["on_failure"] == "continue"


def test_the_null_experiment_is_chosen_by_its_name_and_pairs_two_seeds_an_order():
    made = [compose(["experiment=null", f"seed={seed}"]) for seed in range(4)]
    assert {config.experiment_name for config in made} == {"null"}
    assert [config.data_seed for config in made] == [0, 0, 1, 1]
