"""A launch computes each value once: facts, blocks, measurements, and the estimate of a run on a mesh."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from harness.config.schema.cluster import MeshConfig
from harness.core.number_format import format_clock
from harness.launcher import launch_plan, sweep
from harness.launcher.cost.step_cost import cpu_cores
from harness.launcher.launch_plan import LaunchPlan, forecast_runs
from harness.launcher.placement import forecast, frozen
from harness.launcher.run_directories import set_state
from harness.launcher.stages.summary import plan_lines
from harness.launcher.sweep import launch, prepare_runs
from harness.records.paths import SweepDir
from harness.records.run.status import State
from tests.launcher.support import configs, facts, tools, train


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Number of calls of each stage, and of estimates by run and mesh size."""
    counts: Counter = Counter()

    def count(module, name, key=lambda *_: ""):
        function = getattr(module, name)

        def counted(*arguments):
            counts[name, key(*arguments)] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(sweep, "make_blocks")
    count(launch_plan, "forecast")
    count(launch_plan, "load_observations")
    count(launch_plan, "load_corrections")
    count(forecast, "estimate_run", lambda run, width, *_: (run.name, width))
    return counts


def counted_train(calls: Counter, made) -> None:
    def describe(given):
        calls["describe", ""] += 1
        return [facts(config) for config in given]

    launch(made, dataclasses.replace(tools(), describe=describe), Console(quiet=True))


ONCE = ("describe", "make_blocks", "load_observations", "load_corrections", "forecast")


@pytest.mark.parametrize("devices", [0, 4])
def test_a_fresh_launch_does_each_of_its_stages_once(tmp_path, calls, devices):
    counted_train(calls, configs(tmp_path / "runs", devices=devices))
    assert {name: calls[name, ""] for name in ONCE} == dict.fromkeys(ONCE, 1)
    estimated = {key: count for (name, key), count in calls.items() if name == "estimate_run"}
    assert {run for run, _ in estimated} == {f"xs/{v}/seed{k}" for v in ("mha", "short") for k in (0, 1)}
    assert {*estimated.values()} == {1}
    if devices:
        assert {width for _, width in estimated} == {1, 2, 5, 10}, "every width that divides the batch"


def test_a_launch_that_has_runs_left_describes_and_reads_measurements_once(tmp_path, calls):
    made = configs(tmp_path / "runs", devices=4)
    train(made[:2])
    calls.clear()
    counted_train(calls, made)
    assert {name: calls[name, ""] for name in ONCE[:-1]} == dict.fromkeys(ONCE[:-1], 1)
    assert {count for (name, _), count in calls.items() if name == "estimate_run"} == {1}


class TestLaunchPlan:
    def plan(self, folder: Path, **engine) -> LaunchPlan:
        return forecast_runs(prepare_runs(configs(folder, **engine), tools()))

    def test_keeping_every_run_schedules_nothing_again(self, tmp_path):
        plan = self.plan(tmp_path, devices=4)
        kept = plan.keep(lambda run: True)
        assert kept is not None
        assert kept.forecast is plan.forecast
        assert plan.keep(lambda run: False) is None

    def test_a_subset_is_scheduled_again_on_the_meshes_that_it_had(self, tmp_path):
        plan = self.plan(tmp_path, devices=4, seeds=(0, 1))
        kept = plan.keep(lambda run: run.config.seed == 1)
        assert kept is not None
        assert [block.name for block in kept.blocks] == ["xs/seed1"]
        assert kept.forecast.schedule.makespan <= plan.forecast.schedule.makespan
        assert {run.name: run.devices for run in kept.runs}.items() <= {
            run.name: run.devices for run in plan.runs
        }.items()

    def test_the_prediction_ends_with_the_verdict_and_says_that_the_machine_is_busy(self, tmp_path):
        plan, lines = self.plan(tmp_path), {}
        for demand in (0.0, 1.5):
            predicted = dataclasses.replace(plan.forecast, besides=100.0, demand=demand)
            lines[demand] = "\n".join(plan_lines(plan.sweep, plan.runs, predicted))
            assert predicted.seconds == plan.forecast.schedule.makespan + 100
            assert predicted.low < predicted.seconds < predicted.high
            assert f"{format_clock(predicted.seconds)} predicted to the verdict (" in lines[demand]
        assert "busy" not in lines[0.0]
        assert f"others ask for {1.5 * cpu_cores():.1f} of its {cpu_cores()} core" in lines[1.5]


def test_a_replan_moves_a_sweep_to_a_smaller_machine(tmp_path):
    made = configs(tmp_path, seeds=(0,), devices=8)
    for config in made:
        config.mesh = MeshConfig(data=1)
        config.scale.batch = 8
    train(made)
    trial = SweepDir(tmp_path / "trial")
    assert {place.mesh.data for place in frozen.read_places(trial).values()} == {4}
    for run in trial.runs():
        set_state(run, State.preempted, "left")
    for config in made:
        config.engine.devices, config.resume.replan = 2, True
    train(made)
    assert {place.mesh.data for place in frozen.read_places(trial).values()} == {1}
