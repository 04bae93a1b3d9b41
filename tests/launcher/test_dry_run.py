"""A plan that is asked for: what it prints, that it writes nothing, and that it is what is trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from harness import cli
from harness.cli.train_one import train_single
from harness.cli.views.gantt_text import GanttBar, print_gantt
from harness.config.schema.engine import Schedule
from harness.core.errors import UserError
from harness.launcher.cost import prediction_log
from harness.launcher.cost.step_cost import CALIBRATED, machine_kind
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.placement import frozen
from harness.launcher.sweep import launch
from harness.launcher.workers.supervisor import Assignment, Supervisor
from harness.records.paths import SweepDir
from harness.records.sweep import ledger
from tests.launcher.support import config, configs, tools, train
from tests.launcher.test_prediction_log import made as prediction


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def planned(made, width: int = 120) -> str:
    console = Console(record=True, width=width, force_terminal=False)
    outcomes = launch(made, dataclasses.replace(tools(), engine=_no_engine), console)
    assert {outcome.state for outcome in outcomes} == {"planned"}
    assert len(outcomes) == len(made)
    return console.export_text()


def _no_engine(*_):
    raise AssertionError("a plan starts no worker")


def test_it_prints_the_plan_and_writes_nothing(tmp_path):
    text = planned(configs(tmp_path / "runs", scales=("xs", "s"), dry_run=True))
    assert not (tmp_path / "runs").exists()
    assert "8 runs; 2 scales x 2 variants x 2 seeds" in text
    for name in ("xs/mha/seed0", "s/short/seed1", "worker 0", "worker 1", "▏xs/seed0", "of 2 workers in use"):
        assert name in text
    assert "Nothing was written or trained." in text


def test_on_devices_every_run_has_a_lane_and_a_pair_lies_side_by_side(tmp_path):
    text = planned(configs(tmp_path, dry_run=True, devices=4))
    lanes = [line.split("▏")[0].strip() for line in text.splitlines() if "▏" in line]
    assert lanes == ["device 0", "device 1", "device 2", "device 3"]
    assert "of 4 devices in use" in text


def test_it_says_that_earlier_predictions_made_steps_longer(tmp_path):
    few = [
        prediction(launch=str(i), raw=1.0, measured=1.5, machine=machine_kind("cpu"), evidence=CALIBRATED)
        for i in range(9)
    ]
    plain = planned(configs(tmp_path / "runs", dry_run=True))
    prediction_log.append_predictions(few)
    text = planned(configs(tmp_path / "runs", dry_run=True))
    assert "known from a calibration, and steps times 1.5 from earlier predictions" in text
    assert "steps times" not in plain


def test_all_at_once_is_refused_where_there_is_no_room(tmp_path):
    made = configs(tmp_path / "runs", dry_run=True, devices=3, schedule=Schedule.static)
    with pytest.raises(UserError, match="need 4 devices or more, but there are 3"):
        planned(made)
    made = configs(tmp_path / "runs", devices=3, schedule=Schedule.static)
    with pytest.raises(UserError, match="need 4 devices or more"):
        train(made)
    assert not (tmp_path / "runs" / "trial" / "rule.json").exists(), "refused after something was written"


def test_a_pair_wider_than_the_machine_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"engine.devices=1: .*Set engine.devices to 2 or more"):
        planned(configs(tmp_path, dry_run=True, devices=1))


def test_what_is_planned_is_what_is_trained_and_frozen(tmp_path):
    made = configs(tmp_path, seeds=(0,), devices=8)
    for each in made:
        each.scale.batch = 8
    train(made)
    sweep = SweepDir(tmp_path / "trial")
    places = frozen.read_places(sweep)
    assert {place.mesh.data for place in places.values()} == {4}, "a pair of 4 devices each"
    predicted = ledger.read(sweep, "placement")[0]["content"]["runs"]["xs/mha/seed0"]["predicted"]
    assert predicted["low"] < predicted["seconds"] < predicted["high"]
    before = sweep.ledger.read_bytes()
    console = Console(record=True, width=200)
    train([dataclasses.replace(each, engine=config(tmp_path, devices=16).engine) for each in made], console)
    assert "keep the mesh" not in console.export_text(), "a frozen width was chosen anew"
    assert sweep.ledger.read_bytes() == before, "a finished sweep was placed anew on another machine"


def test_workers_that_share_devices_start_as_they_come_free():
    started: list[str] = []
    supervisor = Supervisor(
        engine=None,  # type: ignore[arg-type]
        settings=None,  # type: ignore[arg-type]
        display=None,  # type: ignore[arg-type]
        workers=9,
        prepare=None,  # type: ignore[arg-type]
        make_spec=lambda each: WorkerSpec(each.name, (), {}, Path(each.name)),
        devices=4,
    )

    def start(assignment: Assignment) -> None:
        started.append(assignment.name)
        supervisor._activate(assignment, lambda _: None)

    supervisor._start = start  # type: ignore[method-assign]
    supervisor.waiting = [Assignment(name, [], n) for name, n in (("a", 3), ("b", 2), ("c", 1), ("d", 6))]
    supervisor._start_waiting()
    assert started == ["a", "c"]
    supervisor.active.clear()
    supervisor._start_waiting()
    assert started == ["a", "c", "b"]
    supervisor.active.clear()
    supervisor._start_waiting()
    assert started[-1] == "d", "what is wider than the machine goes alone instead of never"


def test_the_option_of_the_command_is_hydras_key(tmp_path, monkeypatch):
    from harness.cli import hydra_main as plain

    asked: list[list[str]] = []
    monkeypatch.setattr(plain, "main", lambda arguments, parser: asked.append([*arguments]) or 0)
    assert cli.main(["sweep", "scale=xs", "--dry-run", "seed=0,1"]) == 0
    assert asked == [["-m", "scale=xs", "seed=0,1", "engine.dry_run=true"]]


def test_a_single_run_is_not_trained_by_mistake(tmp_path):
    with pytest.raises(UserError, match=r"engine.dry_run=true: .*harness sweep"):
        train_single(config(tmp_path, dry_run=True))


class TestGantt:
    def drawn(self, bars, width=61) -> list[str]:
        console = Console(record=True, width=width, force_terminal=False)
        print_gantt(bars, "0:10", console)
        return console.export_text().splitlines()

    def test_bars_lie_where_their_times_are(self):
        lines = self.drawn(
            [GanttBar("a", "x", "g", 0, 5), GanttBar("a", "y", "h", 5, 10), GanttBar("b", "z", "g", 2.5, 7.5)]
        )
        margin = 3
        room = 61 - margin - 1
        assert [lines[0].index("▏x"), lines[0].index("▏y")] == [margin, margin + round(room / 2)]
        assert lines[1].index("▏z") == margin + round(room / 4)
        assert lines[2].strip().startswith("0")
        assert lines[2].endswith("0:10")

    def test_no_line_is_longer_than_the_screen_however_many_bars_it_has(self):
        lines = self.drawn([GanttBar("a", f"run{i}", str(i), i * 0.01, i * 0.01 + 0.005) for i in range(300)])
        assert all(len(line) <= 61 for line in lines)

    def test_lanes_that_are_not_drawn_are_counted(self):
        lines = self.drawn([GanttBar(f"lane {i}", "x", "g", 0, 1) for i in range(45)])
        assert lines[-1].strip() == "5 more lanes are not drawn"

    def test_a_bar_without_room_for_its_name_is_said(self):
        said = "Bars without a name are too short for it."
        assert said not in " ".join(self.drawn([GanttBar("a", "x", "g", 0, 10)]))
        assert self.drawn([GanttBar("a", "a_long_name", "g", 0, 1)], 30)[-1].strip() != said
        assert self.drawn([GanttBar("a", "a" * 60, "g", 0, 1)])[-1].strip() == said
