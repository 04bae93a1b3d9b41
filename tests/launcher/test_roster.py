"""A roster from the driver's side: what is announced, who is compared, where seven unequal members lie."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from harness.cli.train_one import train_single
from harness.cli.views.watch_frame import draw_frame
from harness.config import compose
from harness.config.schema.decision import Gate, GateConfig, TuneConfig, TuneTarget
from harness.config.schema.engine import EngineConfig, Schedule
from harness.config.schema.run import Config, RosterConfig, ScheduleConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.placement.forecast import Forecast, RunEstimator, forecast, with_meshes
from harness.launcher.placement.frozen import read_places
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.stages import freeze_rule
from harness.launcher.stages.summary import design_power, plan_lines
from harness.launcher.stages.time_steps import time_variants
from harness.launcher.stages.tune_lr import tune_learning_rates
from harness.launcher.sweep import Outcome, launch
from harness.records.run.status import State, Status, write_status
from harness.report.frames.sweep_progress import ProgressReader
from tests.launcher.support import config, facts, tools, train

SIZES = {"imagine": 0.3, "1t": 1.0, "1p5t": 1.5, "6t": 6.0, "10t": 10.0}
"""Relative to 1t."""
SEVEN = (
    ("10t", "mha"), ("1p5t", "mha"), ("1p5t", "short"), ("1t", "mha"), ("1t", "short"), ("6t", "mha"),
    ("imagine", "dit"),
)  # fmt: skip
"""In the order of their files' names, as a glob has them."""


def roster(folder, members=SEVEN, seeds=(0,), **engine) -> list[Config]:
    made = [config(folder, name, seed, scale, **engine) for scale, name in members for seed in seeds]
    for each in made:
        each.scale.parameters = int(1000 * SIZES[each.scale.name])
        each.scale.batch = 16
    return made


def described(made: Config):
    size = SIZES[made.scale.name]
    unit = "mean squared error a value" if made.scale.name == "imagine" else "nats a token"
    flops = {"flops_per_token": 6e9 * size, "executed_flops_per_token": 6e9 * size}
    return dataclasses.replace(facts(made), non_embedding=int(1e6 * size), loss_unit=unit, **flops)


def runs_of(made: list[Config]) -> list[Run]:
    return [Run(each, described(each), run_dir(sweep_dir(made), each)) for each in made]


def outlook_of(runs: list[Run]) -> Forecast:
    return forecast(make_blocks(runs), runs[0].config.engine, 2, RunEstimator([]))


class TestAnnounced:
    def test_unequal_blocks_are_counted_and_scales_stand_by_size(self, tmp_path):
        runs = runs_of(roster(tmp_path))
        lines = plan_lines(sweep_dir(roster(tmp_path)), runs, outlook_of(runs))
        assert lines[0].endswith("trial: 7 runs; 2 pairs, 3 alone")
        assert lines[1] == "  variants mha (control), short, dit; seeds 0"
        assert [line.split(":")[0].strip() for line in lines[2:-1]] == [
            "imagine (dit)", "1t (mha, short)", "1p5t (mha, short)", "6t (mha)", "10t (mha)",
        ]  # fmt: skip

    def test_blocks_of_three_and_several_pairs_an_arm(self, tmp_path):
        members = [("1t", name) for name in ("mha", "short", "dit")] + [("6t", "mha"), ("6t", "short")]
        made = roster(tmp_path, members, seeds=(0, 1))
        (first, *_) = plan_lines(sweep_dir(made), runs_of(made), outlook_of(runs_of(made)))
        assert first.endswith("10 runs; 2 blocks of 3, 2 pairs")

    @pytest.mark.parametrize(
        "members", [[("1t", "mha")], [("1t", "short")], [("1t", "mha"), ("6t", "short")]]
    )
    def test_a_sweep_that_compares_nothing_says_so_before_it_trains(self, members, tmp_path):
        made = roster(tmp_path, members)
        runs = runs_of(made)
        (line,) = [text for text in plan_lines(sweep_dir(made), runs, outlook_of(runs)) if "nothing" in text]
        assert line == (
            "  nothing will be compared: no other variant trains beside the control mha. To compare, train "
            "both at one scale and seed: variant=mha,OTHER."
        )

    def test_a_control_or_treatment_on_disk_is_compared(self, tmp_path):
        for members, earlier in (([("1t", "short")], "mha"), ([("1t", "mha")], "short")):
            made = roster(tmp_path, members)
            folder = sweep_dir(made).path / "1t" / earlier / "seed0"
            folder.mkdir(parents=True)
            runs = runs_of(made)
            lines = plan_lines(sweep_dir(made), runs, outlook_of(runs))
            assert not [text for text in lines if "nothing" in text]
            folder.rmdir()

    def test_one_seed_promises_no_interval_and_names_what_is_not_compared(self, tmp_path):
        made = roster(tmp_path)
        assert [*design_power(sweep_dir(made), runs_of(made)).lines] == [
            "Only one seed per scale, so no confidence interval or test is possible.",
            "Not compared (no pair at this scale): imagine, 6t, 10t.",
        ]

    def test_power_is_that_of_the_pairs_in_their_unit(self, tmp_path):
        made = roster(tmp_path, seeds=(0, 1, 2))
        sentence, rest = design_power(sweep_dir(made), runs_of(made)).lines
        assert "1t: " in sentence
        assert "1p5t: " in sentence
        assert "nats with 3 seeds" in sentence
        assert "6t" not in sentence
        assert "imagine" not in sentence
        assert rest.startswith("Not compared (no pair at this scale): imagine")

    def test_a_variant_that_comes_later_has_its_control_on_disk(self, tmp_path):
        train(roster(tmp_path, [("1t", "mha")], seeds=(0, 1)))
        made = roster(tmp_path, [("1t", "short")], seeds=(0, 1))
        (sentence,) = design_power(sweep_dir(made), runs_of(made)).lines
        assert "1t: " in sentence


def test_a_command_without_the_control_declares_what_it_trains(tmp_path):
    assert freeze_rule.compared_variants(roster(tmp_path, [("1t", "short")])) == ["short"]


class TestPlaced:
    def test_on_eight_devices_pairs_lie_side_by_side_at_equal_widths(self, tmp_path):
        blocks = make_blocks(runs_of(roster(tmp_path, devices=8)))
        outlook = forecast(blocks, blocks[0].runs[0].config.engine, 8, RunEstimator([]))
        booked = {each.task: each for each in outlook.schedule.reservations}
        assert len(booked) == 7
        for scale in ("1t", "1p5t"):
            one, other = (booked[f"{scale}/{name}/seed0"] for name in ("mha", "short"))
            assert (one.width, one.start) == (other.width, other.start)
            assert abs(one.first_device - other.first_device) == one.width
        assert outlook.schedule.makespan <= outlook.schedule.ideal_makespan / 0.95
        _nobody_shares_a_device(list(booked.values()))
        assert {run.name: run.devices for block in with_meshes(blocks, outlook) for run in block.runs} == {
            name: each.width for name, each in booked.items()
        }

    def test_seven_are_trained_and_watched_and_one_treatment_is_declared(self, tmp_path):
        made = roster(tmp_path, devices=8)
        assert {outcome.state for outcome in train(made)} == {"finished"}
        assert {*read_places(sweep_dir(made))} == {f"{scale}/{name}/seed0" for scale, name in SEVEN}
        family = atomic_files.read_json(sweep_dir(made).rule)["rule"]["family"]
        assert family == ["short"], "what never meets the control is no treatment"
        console = Console(record=True, width=120)
        console.print(draw_frame(ProgressReader(sweep_dir(made)).read(0.0), 120, None))
        assert "7 runs" in console.export_text()

    def test_a_dry_run_draws_all_seven(self, tmp_path):
        console = Console(record=True, width=150)
        made = roster(tmp_path / "runs", devices=8, dry_run=True)
        launch(made, dataclasses.replace(tools(), describe=lambda all: [described(c) for c in all]), console)
        text = console.export_text()
        assert all(f"{scale}/{name}/seed0" in text for scale, name in SEVEN)
        assert "2 pairs, 3 alone" in text
        assert not (tmp_path / "runs").exists()


def _nobody_shares_a_device(booked):
    for i, one in enumerate(booked):
        for other in booked[:i]:
            together = one.start < other.end - 1e-9 and other.start < one.end - 1e-9
            beside = (
                one.first_device + one.width <= other.first_device
                or other.first_device + other.width <= one.first_device
            )
            assert beside or not together, (one, other)


def test_the_timing_pass_times_a_pair_though_singles_are_larger(tmp_path, monkeypatch):
    made = roster(tmp_path)
    for each in made:
        each.gate = GateConfig(Gate.promote)
    runs, said = runs_of(made), []
    for run in runs:
        write_status(run.dir, Status(state=State.finished))
    monkeypatch.setattr("harness.launcher.stages.time_steps.subprocess.run", _failing)
    time_variants(sweep_dir(made), make_blocks(runs), said.append)
    assert said[0].startswith("timing pass: short in turn with mha at 1p5t/seed0")


def _failing(command, **_):
    import subprocess

    return subprocess.CompletedProcess(command, 1, "", "no")


def test_tuning_wants_every_variant_at_the_smallest_scale(tmp_path):
    made = roster(tmp_path)
    for each in made:
        each.tune, each.schedule = TuneConfig(TuneTarget.lr), ScheduleConfig("wsd")
    with pytest.raises(UserError, match="tune=lr: scale imagine, the smallest, has no mha, short"):
        tune_learning_rates(sweep_dir(made), runs_of(made), lambda _: None, print)


@pytest.mark.parametrize("dry", [False, True])
def test_a_planned_ladder_is_refused_before_anything_is_written(tmp_path, dry):
    made = roster(tmp_path / "runs", dry_run=dry)
    made[3].roster = RosterConfig("frontier", vocabulary=10)
    with pytest.raises(UserError, match="roster=frontier can be planned, but not trained"):
        train(made)
    with pytest.raises(UserError, match="roster=frontier"):
        train_single(dataclasses.replace(made[3], engine=EngineConfig()))
    assert not (tmp_path / "runs").exists()


def test_the_command_sweeps_seven_members_and_one_pair_by_name(tmp_path, monkeypatch):
    asked: list[list[Config]] = []

    def taken(configs, tools):
        asked.append([*configs])
        return [Outcome(each.scale.name, "finished", 1) for each in configs]

    monkeypatch.setattr("harness.cli.hydra_jobs.launch", taken)
    for chosen in ([], ["member=1t_a,1t_b"]):
        compose.run_hydra(["-m", "experiment=colossus2", f"runs={tmp_path}", *chosen], lambda _: None)
    seven, pair = asked
    assert len({(each.scale.name, each.variant.name) for each in seven}) == 7
    assert {(each.engine.devices, each.engine.schedule, each.seed) for each in seven} == {
        (8, Schedule.queue, 0)
    }
    assert [(each.scale.name, each.variant.name) for each in pair] == [("1t", "mha"), ("1t", "delta_hybrid")]
