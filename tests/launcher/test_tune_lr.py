"""Tuning before the sweep: an equal bracket for each variant, a frozen result, and what is refused."""

from __future__ import annotations

import json

import pytest

from harness.cli.train_one import train_single
from harness.compare.inputs.lr_tuning import Optimum
from harness.config.pair_check import check_block
from harness.config.schema.decision import TuneConfig, TuneTarget
from harness.config.schema.run import ScheduleConfig
from harness.core.errors import UserError
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.tune_lr import tune_learning_rates
from harness.records.sweep import ledger
from tests.launcher.support import configs, facts

BEST = {"mha": 0.002, "short": 0.003, "third": 0.001}


def tuned_configs(folder, **kinds):
    made = configs(folder, scales=("xs", "s"), **kinds)
    for config in made:
        config.schedule = ScheduleConfig("wsd")
        config.tune = TuneConfig(TuneTarget.lr)
        config.scale.parameters = {"xs": 1000, "s": 2000}[config.scale.name]
    return made


@pytest.fixture
def tuning(monkeypatch):
    """Calls `tune` with a launch that trains nothing; `launched`: what it was asked to train."""
    launched = []

    def read_tuning(sweep, domains):
        names = {config.variant.name for asked in launched for config in asked}
        return {name: Optimum(BEST[name], 1.0, 5, False, "vertex", ((BEST[name], 1.0),)) for name in names}

    monkeypatch.setattr("harness.launcher.stages.tune_lr.read_tuning", read_tuning)

    def run(made):
        sweep = sweep_dir(made)
        runs = [Run(config, facts(config), run_dir(sweep, config)) for config in made]
        return tune_learning_rates(sweep, runs, launched.append, lambda _: None)

    return run, launched


def test_each_variant_gets_the_same_bracket_at_the_smallest_scale(tmp_path, tuning):
    run, launched = tuning
    run(tuned_configs(tmp_path))
    (asked,) = launched
    rates = {name: [c.optimizer.learning_rate for c in asked if c.variant.name == name] for name in BEST}
    assert rates["mha"] == rates["short"] == [0.00025, 0.0005, 0.001, 0.002, 0.004]
    assert {c.scale.parameters for c in asked} == {1000}
    assert {(c.seed, c.data_seed) for c in asked} == {(1_000_003, 1_000_003)}
    assert {c.experiment_name for c in asked} == {"trial/tune"}
    assert {c.tune.name for c in asked} == {TuneTarget.none}, "a tune sweep is not tuned itself"


def test_each_run_takes_its_variants_rate_and_the_width_it_was_tuned_at(tmp_path, tuning):
    run, _ = tuning
    made, found = run(tuned_configs(tmp_path))
    assert all(config.optimizer.learning_rate == BEST[config.variant.name] for config in made)
    assert {config.model.base_width for config in made} == {8}
    assert {name: entry["learning_rate"] for name, entry in found.items()} == {"mha": 0.002, "short": 0.003}
    check_block([config for config in made if (config.scale.name, config.seed) == ("s", 0)], "s/seed0")


def test_without_tuning_nothing_changes_and_another_rate_is_refused(tmp_path, tuning):
    run, launched = tuning
    made = configs(tmp_path, seeds=(0,))
    assert run(made) == (made, {})
    assert launched == []
    made[1].optimizer.learning_rate = 0.002
    with pytest.raises(UserError, match=r"optimizer\.learning_rate"):
        check_block(made, "xs/seed0")


def test_what_was_found_is_frozen_and_a_later_variant_is_added(tmp_path, tuning):
    run, launched = tuning
    run(tuned_configs(tmp_path))
    _, found = run(tuned_configs(tmp_path))
    assert len(launched) == 1
    _, more = run(tuned_configs(tmp_path, variants=("mha", "third")))
    assert {config.variant.name for config in launched[1]} == {"third"}
    assert more == found | {"third": more["third"]}


@pytest.mark.parametrize("change", [lambda text: text.replace("0.003", "0.030"), lambda _: ""])
def test_a_result_that_was_changed_is_written_again_as_the_ledger_holds_it(tmp_path, tuning, change):
    run, launched = tuning
    _, found = run(tuned_configs(tmp_path))
    path = sweep_dir(configs(tmp_path)).tune.learning_rates
    before = path.read_text()
    path.write_text(change(before))
    assert run(tuned_configs(tmp_path))[1] == found
    assert (path.read_text(), len(launched)) == (before, 1)


def test_a_result_that_was_changed_is_refused_where_the_ledger_holds_its_hash_alone(tmp_path, tuning):
    run, _ = tuning
    run(tuned_configs(tmp_path))
    tune = sweep_dir(configs(tmp_path)).tune
    (entry,) = ledger.read_valid(tune, "tuned")
    tune.ledger.unlink()
    ledger.append(tune, "tuned", {"hash": entry["content"]["hash"]})
    tune.learning_rates.write_text(tune.learning_rates.read_text().replace("0.003", "0.030"))
    with pytest.raises(UserError, match="changed or lost after it was hashed"):
        run(tuned_configs(tmp_path))


def test_a_seed_of_the_sweep_is_refused(tmp_path, tuning):
    run, launched = tuning
    made = tuned_configs(tmp_path)
    for config in made:
        config.tune = TuneConfig(TuneTarget.lr, seed=1)
    with pytest.raises(UserError, match=r"tune\.seed=1"):
        run(made)
    assert launched == []


def test_a_schedule_that_never_decays_is_refused_before_anything_is_trained(tmp_path, tuning):
    run, launched = tuning
    made = tuned_configs(tmp_path)
    made[0].schedule = ScheduleConfig("constant")
    with pytest.raises(UserError, match="never decays"):
        run(made)
    assert launched == []


def test_the_rule_holds_what_was_found_and_the_ledger_what_came_later(tmp_path):
    made = tuned_configs(tmp_path)
    sweep = sweep_dir(made)
    one = {"mha": {"learning_rate": 0.002}}
    assert freeze_rule.write_rule(sweep, made[0], ["mha"], one) is None
    assert json.loads(sweep.rule.read_text())["tuning"] == one
    assert freeze_rule.write_rule(sweep, made[0], ["mha"], one | {"third": {"learning_rate": 0.001}}) is None
    assert [entry["content"]["tuning"] for entry in ledger.read(sweep, "tuning")] == [
        {"third": {"learning_rate": 0.001}}
    ]


def test_a_single_run_is_not_tuned(tmp_path):
    with pytest.raises(UserError, match="one run cannot be tuned alone"):
        train_single(tuned_configs(tmp_path)[0])
