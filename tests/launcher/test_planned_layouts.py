"""A plan's layouts are handed to a sweep: each run takes those of its name, or one sentence says why not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.layouts import Layout
from harness.launcher.cost.step_cost import possible_meshes
from harness.launcher.planned_layouts import with_planned_layouts
from harness.records.paths import SweepDir
from harness.records.run.config_file import read_config
from tests.launcher.support import configs, facts, train

LAYOUT = Layout(data=1, fsdp=2, microbatch=1, remat=Remat.full)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))


def plan_file(folder, made, **changed) -> str:
    """What `harness plan --json` prints of these runs, as far as a sweep reads it."""
    rows = [
        {
            "name": f"{each.scale.name}/{each.variant.name}/seed{each.seed}",
            "parameters": facts(each).parameters,
            "batch": each.scale.batch,
            "layout": {**dataclasses.asdict(LAYOUT), "remat": "full"},
            "verdict": "",
        }
        | changed
        for each in made
    ]
    path = folder / "plan.json"
    path.write_text(json.dumps({"runs": rows}))
    return str(path)


def with_plan(made, place):
    for each in made:
        each.engine.plan = place
    return made


def test_each_run_trains_in_its_layout(tmp_path):
    made = configs(tmp_path / "runs", seeds=(0,))
    train(with_plan(made, plan_file(tmp_path, made)))
    stored = read_config(SweepDir(tmp_path / "runs" / "trial").run("xs", "mha", 0).config)
    assert stored.mesh == MeshConfig(fsdp=2)
    assert (stored.compute.microbatches, stored.compute.remat) == (5, Remat.full)
    assert made[0].mesh == MeshConfig(), "the command's own config is not changed"


def test_a_planned_mesh_is_not_spread_over_more_devices(tmp_path):
    made = configs(tmp_path)
    given = with_planned_layouts(with_plan(made, plan_file(tmp_path, made)))
    assert possible_meshes(given[0]) == {2: MeshConfig(fsdp=2)}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"name": "xs/other/seed0"}, "has no run xs/mha/seed0; it has xs/other/seed0"),
        ({"batch": 20}, "xs/mha/seed0 with a batch of 20 sequences, and this command with 10"),
        ({"parameters": 7}, "xs/mha/seed0 with 7 parameters, and this command with 1,200"),
        ({"layout": None, "verdict": "it fits nowhere"}, "has no layout for xs/mha/seed0: it fits nowhere"),
        ({"layout": {"data": "many", "remat": "full"}}, "is no plan, or damaged"),
    ],
)
def test_a_plan_of_something_else_is_one_sentence(tmp_path, changed, named):
    made = configs(tmp_path / "runs", seeds=(0,))
    with pytest.raises(UserError, match=named) as caught:
        train(with_plan(made, plan_file(tmp_path, made, **changed)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists(), "refused after something was written"


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"engine.plan=.*nothing.json is not there. Give the plan.json"):
        with_planned_layouts(with_plan(configs(tmp_path), str(tmp_path / "nothing.json")))
