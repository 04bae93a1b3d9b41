"""A run that its devices have no room for is told in a dry run and refused by a launch, before it is trained;
devices that stay idle are told."""

from __future__ import annotations

import dataclasses

import pytest
from rich.console import Console

from harness.config.compose import compose
from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.core.number_format import GIB
from harness.estimate.calibration import estimate_step
from harness.estimate.clusters import sole_partition
from harness.estimate.layouts import config_layout
from harness.estimate.memory import MEMORY_UNCERTAINTY
from harness.estimate.model_size import shape_from_facts
from harness.launcher.cost import device_room as room
from harness.launcher.cost.step_cost import COMPUTED, MEASURED, estimate_run
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.sweep import launch
from tests.launcher.support import configs, facts, tools, train
from tests.launcher.test_step_cost import observed


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def runs_of(made) -> list[Run]:
    return [Run(each, facts(each), run_dir(sweep_dir(made), each)) for each in made]


def said(made) -> str:
    console = Console(record=True, width=300, force_terminal=False)
    launch(made, tools(), console)
    return console.export_text()


def test_it_is_told_in_a_dry_run_and_refused_by_a_launch(tmp_path, monkeypatch):
    need = room.run_bytes(runs_of(configs(tmp_path))[0])
    monkeypatch.setattr(room, "memory_limit", lambda: need / 3)
    text = said(configs(tmp_path / "runs", dry_run=True))
    assert text.count("xs/mha/seed0 needs") == 1, "runs of one size are named once"
    assert "(1 simulated device on" in text
    assert "compute.remat=full needs" in text
    with pytest.raises(UserError, match=r"xs/mha/seed0 needs .* compute.microbatches=5 needs"):
        train(configs(tmp_path / "runs"))
    assert "fsdp" not in text, "simulated devices share their host's memory"
    assert not (tmp_path / "runs").exists()


def test_what_may_fit_is_told_but_left_to_the_worker(tmp_path, monkeypatch):
    runs = runs_of(configs(tmp_path))
    need = room.run_bytes(runs[0])
    monkeypatch.setattr(room, "memory_limit", lambda: need * 0.999)
    assert len(room.shortages(runs)) == 1
    room.check_room(runs)
    monkeypatch.setattr(room, "memory_limit", lambda: need / MEMORY_UNCERTAINTY)
    with pytest.raises(UserError):
        room.check_room(runs)
    monkeypatch.setattr(room, "memory_limit", lambda: need)
    assert room.shortages(runs) == []


def test_a_described_chip_has_its_own_memory_and_an_accelerator_is_asked_later(tmp_path):
    (run, *_) = runs_of(configs(tmp_path))
    run.config.cluster = compose(["cluster=h100x8"]).cluster
    assert room.device_room(run) == room.DeviceRoom(74.5 * GIB, "H100-80G", 8)
    run.config.cluster = compose(["cluster.platform=cuda"]).cluster
    assert room.device_room(run) is None


def test_a_described_chip_takes_the_plans_time_until_runs_were_measured(tmp_path):
    (run, *_) = runs_of(configs(tmp_path))
    cluster = compose(["cluster=h100x8"]).cluster
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, cluster=cluster))
    part = sole_partition(cluster)
    model = shape_from_facts(run.config, run.facts, run.name)
    step = estimate_step(model, config_layout(run.config), part.chip, part.links)
    found = estimate_run(run, 1, 1.0, [])
    assert found.train / found.steps == pytest.approx(step.value)
    assert found.high / found.seconds == pytest.approx(step.high / step.value)
    assert found.evidence == COMPUTED
    measured = estimate_run(run, 1, 1.0, [observed(1e9)])
    assert measured.evidence == MEASURED
    assert measured.train == pytest.approx(measured.steps * 6600 * 1280 / 1e9)


def test_devices_that_stay_idle_are_told_with_what_would_use_them(tmp_path):
    made = configs(tmp_path, seeds=(0,), dry_run=True, devices=8)
    for each in made:
        each.scale.batch = 2
    text = said(made)
    assert "places on 4 of 8 devices: the batch of 2 sequences splits no further; mesh.context=2 or" in text
    for each in made:
        each.mesh = MeshConfig(context=2)
    assert "places on" not in said(made), "all are in use"


def test_a_mesh_that_would_not_fit_beside_its_siblings_is_the_reason(tmp_path):
    made = configs(tmp_path, seeds=(0,), dry_run=True, devices=7)
    for each in made:
        each.scale.batch = 4
    text = said(made)
    assert (
        "places on 4 of 7 devices: 2 runs side by side have 2 each, and the next larger mesh would need 8"
        in text
    )
