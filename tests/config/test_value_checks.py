"""Values are refused at composition: numbers by their range, names that are no folder, less than a step."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config.compose import compose, config_groups, sweep_configs
from harness.config.schema.ranges import FINITE, RANGES, Range, numbers
from harness.config.schema.run import Config, field_type
from harness.config.value_checks import check_values
from harness.core.errors import UserError
from harness.core.paths import MAX_NAME_BYTES, check_folder_name


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        compose(overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def numeric_keys(kind: object, key: str = "") -> Iterator[str]:
    """Yield the dotted key of every number that the schema declares."""
    if dataclasses.is_dataclass(kind):
        for name, declared in typing.get_type_hints(kind).items():
            yield from numeric_keys(declared, f"{key}.{name}".lstrip("."))
    elif typing.get_origin(kind) in (list, dict):
        yield from numeric_keys(typing.get_args(kind)[-1], f"{key}.*")
    elif typing.get_origin(kind) is types.UnionType:
        yield from numeric_keys(typing.get_args(kind)[0], key)
    elif kind in (int, float):
        yield key


def test_every_number_of_the_schema_has_a_range():
    assert set(numeric_keys(Config)) == RANGES.keys()
    assert len(RANGES) > 80


@pytest.mark.parametrize("group", ["scale", "schedule", "cluster", "optimizer", "tune", "profile"])
def test_every_value_of_conf_is_in_its_range(group):
    for choice in config_groups()[group]:
        assert [*numbers(compose([f"{group}={choice}"]))]


PLAIN = compose([])


@pytest.mark.parametrize("key", [key for key in RANGES if "*" not in key])
def test_a_number_outside_is_refused_with_key_value_and_range(key):
    interval = RANGES[key]
    whole = field_type(key) in (int, int | None)
    outside = [interval.low - 1] + ([] if whole else [math.nan, math.inf, -math.inf])
    outside += [interval.low] if interval.open_low else []
    outside += [interval.high] if interval.open_high else [interval.high + 1] * (interval.high < math.inf)
    config = copy.deepcopy(PLAIN)
    *path, name = key.split(".")
    node = functools.reduce(getattr, path, config)
    for value in outside:
        text = f"{value:g}"
        setattr(node, name, int(text) if whole else float(text))
        with pytest.raises(UserError) as raised:
            check_values(config)
        assert str(raised.value) == f"{key}={getattr(node, name)}: out of range. Give {interval}."


NESTED = {
    "schedule.branches=[0.5,1.5]": "schedule.branches.1=1.5: out of range. "
    "Give a finite number, above 0 and below 1.",
    "data.sources.prose.weight=-1": "data.sources.prose.weight=-1.0: out of range",
    "+data.stages=[{start: 2.0}]": "data.stages.0.start=2.0: out of range",
    "checkpoint.every=0": "checkpoint.every=0: out of range. Give a finite number, at least 1.",
}  # fmt: skip


@pytest.mark.parametrize(("override", "sentence"), NESTED.items())
def test_numbers_in_lists_and_sources_have_ranges(override, sentence):
    assert sentence in refusal(override)


def test_options_of_a_mechanism_are_finite_numbers():
    assert "model.attention.options.window=nan: out of range" in refusal(
        "+model.attention.options.window=nan"
    )


def test_the_ends_of_a_range():
    assert 1 in Range(1)
    assert 1 not in Range(1, open_low=True)
    assert math.nan not in FINITE
    assert math.inf not in FINITE
    assert 10**400 in FINITE
    assert str(Range(0, 1, open_low=True)) == "a finite number, above 0 and at most 1"
    assert str(FINITE) == "a finite number"


KEYS = ("experiment_name", "scale.name", "variant.name")


def refused_name(key: str, name: str) -> str:
    """Check a config with a name, without the composition, which takes a hundred times as long."""
    config = copy.deepcopy(PLAIN)
    *path, leaf = key.split(".")
    setattr(functools.reduce(getattr, path, config), leaf, name)
    with pytest.raises(UserError) as raised:
        check_values(config)
    return str(raised.value)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "name", ["", "../../x", "/tmp/x", "a/b", "..", ".x", "a\\b", "a\tb", "a\x07b", " a", "a\u202eb"]
)
def test_a_name_that_is_no_folder_is_refused(key, name):
    message = refused_name(key, name)
    assert message.startswith(f"{key}=")
    assert "must name a folder: not empty" in message
    assert message.isprintable()


@pytest.mark.parametrize("key", KEYS)
def test_a_name_that_is_no_folder_is_refused_as_it_is_typed(key):
    assert "must name a folder: not empty" in refusal(f"{key}='a\\\\b'")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["x" * 300, "x" * (MAX_NAME_BYTES + 1), "é" * (MAX_NAME_BYTES // 2 + 1)])
def test_a_name_that_is_too_long_is_refused_with_the_limit(key, name):
    limit = f"has {len(name.encode())} bytes, and at most {MAX_NAME_BYTES} are allowed"
    assert limit in refused_name(key, name)


def test_two_longest_names_and_a_seed_fit_into_one_file_name(tmp_path):
    name = "x" * MAX_NAME_BYTES
    check_folder_name("scale.name", name)
    (tmp_path / f"{name}-{name}-seed4294967295.requeue-99.slurm.log").touch()


TYPED = ["2026_11_21", "1e3", "true", "007", "12", "1.50", "1_0", "nan", "a b", "2026-11-21", "a.b"]


@pytest.mark.parametrize("name", TYPED)
def test_a_name_stays_what_was_typed(name):
    config = compose([f"experiment_name={name}", f"+rule.control={name}"])
    assert (config.experiment_name, config.rule.control) == (name, name)


def test_swept_names_stay_what_was_typed_and_null_stays_null():
    assert [config.variant.name for config in sweep_configs(["variant.name=1_0,2e1,x"])] == [
        "1_0",
        "2e1",
        "x",
    ]
    (config,) = sweep_configs(["experiment_name=2026_11_21"])
    assert config.experiment_name == "2026_11_21"
    assert compose(['experiment_name="1_0"']).experiment_name == "1_0"
    assert compose(["finetune.parent=null"]).finetune.parent is None
    assert refusal("experiment_name=null") == "experiment_name=null: null is not allowed here. Give a value."


def test_a_whole_number_in_another_notation_is_answered_with_the_right_one():
    assert refusal("scale.tokens=1e4") == "scale.tokens=10000.0: not a whole number; write 10000"
    assert refusal("scale.batch=1.5") == "scale.batch=1.5: not a whole number"


def test_less_than_one_step_names_the_budget():
    assert refusal("scale.tokens=511") == (
        "scale.tokens=511 is less than one step of 512 tokens (scale.batch=4 x data.sequence_length=128). "
        "Raise scale.tokens or lower scale.batch."
    )
    assert compose(["scale.tokens=512"]).scale.tokens == 512


LISTS = {
    "variant=[mha,short]": "variant=[mha,short]: a list merges its files into one variant. "
    "Write `harness sweep variant=mha,short`.",
    "scale=[xs]": "Write `harness sweep scale=xs`.",
    "experiment=[attention,experts]": "each experiment is a separate sweep",
}


@pytest.mark.parametrize(("override", "sentence"), LISTS.items())
def test_a_list_of_choices_is_refused_with_the_form_of_a_sweep(override, sentence):
    assert sentence in refusal(override)


def test_a_list_in_the_sweep_of_an_experiment_is_refused_too(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      variant: [mha, short]\n"
    (tmp_path / "experiment" / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=r"Write `harness sweep variant=mha,short`"):
        sweep_configs([f"hydra.searchpath=[file://{tmp_path}]", "experiment=own"])
