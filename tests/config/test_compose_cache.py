"""A sweep composes each combination of choices once, and every job is what Hydra composes for it alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import hydra
import pytest
from hydra._internal.hydra import Hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from harness.config import compose as composing
from harness.config import compose_cache
from harness.config.compose import config_groups, sweep_configs, to_resolved_config
from harness.config.compose_cache import SweepComposer
from harness.config.hydra_errors import as_user_errors
from harness.config.schema.run import Config
from harness.core.errors import UserError

GROUPS = ("variant", "scale", "optimizer", "schedule", "data", "engine", "gate", "tune", "profile")
EXPERIMENTS = ("attention", "data_mix", "finetune", "imagine", "'null'", "optimizer")
VALUES = (
    "seed=0", "seed=1", "seed=7", "seed=x", "data_seed=3", "data_seed='${seed}'", "data_seed=${scale.batch}",
    "optimizer.learning_rate=1", "optimizer.learning_rate=2e-3", "optimizer.learning_rate=null",
    "scale.tokens=20000", "scale.tokens=1", "scale.tokens=70000", "scale.batch=4", "scale.batch=1e1",
    "experiment_name=a", "experiment_name='b c'", "experiment_name=''", "experiment_name='x${seed}'",
    "runs=file:///tmp/r", "runs=elsewhere", "runs=s3://bucket/x", "finetune.parent=file:///tmp/p",
    "finetune.parent=${runs}/p", "data.tokenizer=file:///tmp/t.json", "data.tokenizer=${experiment_name}",
    "data.horizon=${scale.tokens}", "engine.isolation=run", "engine.isolation=all",
    "engine.on_failure=stop_all", "engine.dry_run=true", "engine.stall_seconds=30",
    "engine.slurm.time_limit='01:00'",
    "engine.slurm.extra=[--mem=4G]", "engine.slurm.extra=[]", "rule.control=mha", "rule.control=null",
    "variant.name=other", "variant.touches=[seed]", "schedule.branches=[0.25,0.5]", "imports=[]",
    "model.attention.options.window=4", "+model.attention.options.window=8", "++model.attention.options={}",
    "+schedule.branches=[0.1]", "+schedule.warmup_steps=3", "~rule.control", "~data.sources.code",
    "~scale.tokens", "data.sources.code.weight=2", "data.sources.code.weight=3.5", "data.sources.prose.path=file:///tmp/a.txt",
    "mesh.data=2", "resume.replan=yes", "nothing.here=1", "seed.more=2", "~experiment", "variant=nothing",
)  # fmt: skip
"""Overrides of every kind; some are mistakes alone, some only together with others."""


@pytest.fixture(scope="module")
def loads() -> tuple[Callable[[list[str]], DictConfig], SweepComposer, DictConfig]:
    """Hydra's own composition of a job, the composer under test, and the config of the command."""
    composing.register_schema()
    with hydra.initialize_config_dir(str(composing.CONF_FOLDER), version_base="1.3"):
        loader: ConfigLoader = GlobalHydra.instance().config_loader()
        master = hydra.compose("config", [], return_hydra_config=True)
        plain = loader.load_sweep_config
    return (lambda job: plain(master, job)), SweepComposer(plain), master


def outcome(config: Callable[[], Config]) -> str:
    """Return all of a config, types included, or the sentence of its mistake."""
    try:
        with as_user_errors():
            return repr(config())
    except UserError as error:
        return f"UserError: {error}"


def random_job(draw: random.Random) -> list[str]:
    choices = [f"{group}={draw.choice(config_groups()[group])}" for group in draw.sample(GROUPS, 2)]
    if draw.random() < 0.3:
        choices.append(f"experiment={draw.choice(EXPERIMENTS)}")
    job = [*draw.sample(choices, draw.randrange(3)), *draw.sample(VALUES, draw.randrange(5))]
    return draw.sample(job, len(job))


def sibling(job: Sequence[str]) -> list[str]:
    """Return a job that sets the same keys to other numbers, whose template `job` then finds."""
    return [re.sub(r"=(\d)([\d.e-]*)$", r"=1\1\2", override) for override in job]


def check_equal(loads, job: Sequence[str], *, sentence: bool = True) -> str:
    """Compare a job after its sibling, and return what it is. Of several mistakes, any may be told."""
    plain, composer, master = loads
    expected = outcome(lambda: to_resolved_config(plain([*job])))
    outcome(lambda: composer.load(master, sibling(job)).to_config())
    result = outcome(lambda: composer.load(master, [*job]).to_config())
    both_fail = result.startswith("UserError") and expected.startswith("UserError")
    assert result == expected or (both_fail and not sentence), job
    return expected


def check_random_jobs(loads, seed: int, count: int) -> None:
    draw = random.Random(seed)
    results = [check_equal(loads, random_job(draw), sentence=False) for _ in range(count)]
    assert sum(not result.startswith("UserError") for result in results) > count / 4


def test_random_jobs_are_what_hydra_composes_for_them(loads):
    check_random_jobs(loads, seed=1, count=16)


@pytest.mark.slow
def test_many_random_jobs_are_what_hydra_composes_for_them(loads):
    check_random_jobs(loads, seed=2, count=200)


@pytest.mark.parametrize(
    "job",
    [
        ["experiment=finetune", "runs=file:///tmp/r", "seed=5"],
        ["experiment='null'", "seed=5"],
        ["experiment='null'", "seed=6"],
        ["variant=mix_late_code", "scale.tokens=50000"],
        ["variant=mix_late_code", "scale.tokens=60000"],
        ["optimizer.learning_rate=1", "~optimizer.learning_rate"],
        ["~optimizer.learning_rate", "optimizer.learning_rate=1"],
        ["optimizer.learning_rate=1", "optimizer.learning_rate=2"],
        ["seed=1", "seed='${data_seed}'", "data_seed=4"],
        ["seed='${data_seed}'", "seed=2", "data_seed=4"],
        ["seed=a"],
        ["roster=replica", "member=1t_a", "seed=2"],
        ["roster=replica", "member=1t_b", "seed=3"],
        ["finetune.parent=s3://a/b"],
        ["finetune.parent=file:///b"],
    ],
)
def test_jobs_that_are_easy_to_get_wrong(loads, job):
    check_equal(loads, job)


def test_jobs_that_differ_in_values_alone_share_one_composition(monkeypatch):
    compositions: list[list[str]] = []
    whole = compose_cache.JobTemplate.__init__

    def counting(self, node, values):
        compositions.append([value.key_or_group for value in values])
        whole(self, node, values)

    monkeypatch.setattr(compose_cache.JobTemplate, "__init__", counting)
    configs = sweep_configs(["variant=mha,short", "seed=range(0,20)", "scale.tokens=40000"])
    assert [config.seed for config in configs] == [*range(20)] * 2
    assert [config.data_seed for config in configs] == [*range(20)] * 2
    assert compositions == [["seed", "scale.tokens"]] * 2


def test_a_config_that_is_changed_changes_no_other(loads):
    _, composer, master = loads
    first = composer.load(master, ["seed=31"]).to_config()
    first.rule.control, first.data.sources = "changed", {}
    again = composer.load(master, ["seed=31"]).to_config()
    assert (again.rule.control, [*again.data.sources]) == ("", ["prose", "code"])


def test_many_combinations_are_told_while_they_are_composed(monkeypatch, capsys):
    monkeypatch.setattr(compose_cache, "SECONDS_BETWEEN_LINES", 0.0)
    sweep_configs(["variant=mha,short"])
    assert "composing: 2 combinations of choices so far" in capsys.readouterr().err


def test_a_sweep_is_a_sweep_whatever_mode_is_set_and_hydra_is_left_as_it_was():
    lookup = Hydra.get_mode
    words = ["experiment=attention", "scale=xs", "seed=0", "variant=mha,short"]
    plain = sweep_configs(words)
    assert [config.variant.name for config in plain] == ["mha", "short"]
    assert sweep_configs([*words, "hydra.mode=RUN"]) == plain
    assert Hydra.get_mode is lookup
