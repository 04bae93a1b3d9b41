"""What the verdict would find INVALID is refused before the first step, in the verdict's own words."""

from __future__ import annotations

import dataclasses

import pytest

from harness.config.schema.decision import Axis, Stopping
from harness.config.schema.run import ScheduleConfig
from harness.core.errors import UserError
from harness.launcher.comparable_runs import check_comparable, launch_flags
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from tests.launcher.support import configs, facts


def pair(folder, change=None, touches=("model.attention",), **other_facts):
    """Return control and treatment of one seed; `change` edits the treatment's config."""
    made = configs(folder, seeds=(0,))
    made[1].variant.touches = [*touches]
    if change:
        change(made[1])
    described = [facts(made[0]), dataclasses.replace(facts(made[1]), **other_facts)]
    return [
        Run(config, each, run_dir(sweep_dir(made), config))
        for config, each in zip(made, described, strict=True)
    ]


def larger_batch(config):
    config.scale.batch = 30


def fewer_tokens(config):
    config.scale.tokens = 10000


def cosine(config):
    config.schedule = ScheduleConfig("cosine", floor=0.1)


def constant(config):
    config.schedule = ScheduleConfig("constant")


def other_tokenizer(config):
    config.data.tokenizer = "byte"


@pytest.mark.parametrize(
    ("change", "touches", "other_facts"),
    [
        (None, ["model.attention"], {}),
        (cosine, ["schedule"], {}),
        (cosine, ["schedule.name", "schedule.floor"], {}),
        (larger_batch, ["scale.batch"], {"steps": 6, "tokens_per_step": 3840}),
        (larger_batch, ["scale"], {"steps": 6, "tokens_per_step": 3840}),
        (None, ["data"], {"data_fingerprint": "x"}),
    ],
)
def test_a_declared_question_may_be_trained(tmp_path, change, touches, other_facts):
    runs = pair(tmp_path, change, touches, **other_facts)
    assert launch_flags(*runs) == set()
    check_comparable(make_blocks(runs))


@pytest.mark.parametrize(
    ("change", "touches", "other_facts", "words"),
    [
        (fewer_tokens, ["scale"], {"steps": 15}, r"scale.tokens \(10000 against 12800\).*UNEQUAL_TOKENS"),
        (larger_batch, ["scale.batch"], {"steps": 4, "tokens_per_step": 3840}, "UNEQUAL_TOKENS"),
        (constant, ["schedule"], {}, r"schedule.name \('constant' against 'wsd'\).*HOT_LR_LOOK"),
        (
            other_tokenizer,
            ["data.tokenizer"],
            {"eval_fingerprint": "x", "data_fingerprint": "x"},
            r"data.tokenizer \('byte' against 'bpe512'\).*EVAL_SET_MISMATCH.*one tokenizer",
        ),
    ],
)
def test_what_would_be_invalid_is_refused(tmp_path, change, touches, other_facts, words):
    runs = pair(tmp_path, change, touches, **other_facts)
    with pytest.raises(UserError, match=words) as error:
        check_comparable(make_blocks(runs))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("xs/seed0: the verdict could not compare 'short' with 'mha'")


@pytest.mark.parametrize("change", [larger_batch, cosine, fewer_tokens, other_tokenizer])
def test_an_undeclared_difference_is_refused(tmp_path, change):
    with pytest.raises(UserError, match="neither declares"):
        make_blocks(pair(tmp_path, change))


def test_a_schedule_that_never_decays_leaves_nothing_to_compare(tmp_path):
    runs = pair(tmp_path)
    for run in runs:
        constant(run.config)
    runs = [dataclasses.replace(run, facts=facts(run.config)) for run in runs]
    with pytest.raises(UserError, match=r"schedule.name=constant.*HOT_LR_LOOK.*schedule=wsd"):
        check_comparable(make_blocks(runs))
    check_comparable(make_blocks(runs[:1]))


def test_looks_need_equal_branches_even_of_a_declared_schedule(tmp_path):
    runs = pair(tmp_path, touches=["schedule"])
    for run, shares in zip(runs, ([0.4, 0.6], [0.5, 0.6]), strict=True):
        run.config.schedule.branches = shares
    assert launch_flags(*runs) == set()
    for run in runs:
        run.config.rule.stopping = Stopping.looks
    assert launch_flags(*runs) == {"SCHEDULE_MISMATCH"}
    runs[1].config.schedule.branches = [0.4, 0.6]
    assert launch_flags(*runs) == set()


def test_matched_flops_may_have_other_tokens_and_the_message_names_their_number(tmp_path):
    runs = pair(tmp_path, fewer_tokens, ["scale", "model"], steps=10, flops_per_token=12000.0)
    assert launch_flags(*runs) == {"UNEQUAL_TOKENS"}
    for run in runs:
        run.config.rule.match = Axis.flops
    assert launch_flags(*runs) == set()
    runs[1] = dataclasses.replace(runs[1], facts=dataclasses.replace(runs[1].facts, steps=15))
    with pytest.raises(UserError, match=r"UNMATCHED.*Give 'short' scale.tokens=12800\."):
        check_comparable(make_blocks(runs))


def test_mixes_that_change_at_other_tokens_are_other_data(tmp_path):
    mixes = [(0, {"own": 4096}), (5, {"own": 4096})]
    runs = pair(tmp_path, larger_batch, ["scale.batch"], steps=6, tokens_per_step=3840, mixes=mixes)
    runs[0] = dataclasses.replace(runs[0], facts=dataclasses.replace(runs[0].facts, mixes=mixes))
    assert launch_flags(*runs) == {"DATA_ORDER_MISMATCH"}
