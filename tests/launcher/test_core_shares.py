"""Cores of this machine for workers that simulate their devices: nobody waits while a core is free."""

from __future__ import annotations

import pytest

from harness.config.schema.cluster import MeshConfig
from harness.config.worker_options import from_env
from harness.core.jax_setup.jax_variables import POOL_VARIABLE
from harness.launcher.placement.core_shares import CoreShare, seconds_in_turn, share_cores
from harness.launcher.placement.forecast import RunEstimator, forecast, with_meshes
from harness.launcher.runs import Block, Run, make_blocks, run_dir, sweep_dir
from harness.launcher.workers.worker_specs import assign_runs, max_workers, worker_spec
from tests.launcher.support import configs, facts

VARIANTS = ("mha", "short", "wide")


def blocks_of(folder, *, seeds=2, scales=("xs",), width=1, **engine) -> list[Block]:
    made = configs(folder, VARIANTS, range(seeds), scales, **{"workers": 0} | engine)
    for config in made:
        config.mesh = MeshConfig(data=width)
    return make_blocks([Run(config, facts(config), run_dir(sweep_dir(made), config)) for config in made])


@pytest.fixture
def cores(monkeypatch):
    def set_cores(count: int) -> None:
        for module in ("placement.core_shares", "placement.forecast"):
            monkeypatch.setattr(f"harness.launcher.{module}.cpu_cores", lambda: count)

    monkeypatch.setattr("harness.launcher.placement.core_shares.free_memory", lambda: 1e12)
    return set_cores


def widths_of(folder, cores_of_host, set_cores, **sweep) -> list[tuple[int, int]]:
    """Cores and devices of each worker of a sweep."""
    set_cores(cores_of_host)
    blocks = blocks_of(folder, **sweep)
    settings = blocks[0].runs[0].config.engine
    entries = assign_runs(blocks, settings, max_workers(settings, blocks))
    return [(entry.cores, entry.devices) for entry in entries]


@pytest.mark.parametrize(
    ("host", "sweep", "expected"),
    [
        (2, {"seeds": 2}, [(1, 1)] * 2),
        (2, {"seeds": 3}, [(1, 1), (1, 1), (2, 2)]),  # the last one has the core that the others leave
        (2, {"seeds": 1}, [(2, 2)]),
        (8, {"seeds": 1}, [(8, 3)]),
        (16, {"seeds": 9}, [(2, 2)] * 7 + [(1, 1)] * 2),
        (1, {"seeds": 2}, [(1, 1)] * 2),
        (2, {"seeds": 2, "width": 2}, [(2, 2)] * 2),
        (2, {"seeds": 1, "width": 4}, [(2, 4)]),  # a run that is wider than the machine trains all the same
        (4, {"seeds": 4, "workers": 2}, [(2, 2)] * 4),
        (2, {"seeds": 2, "isolation": "all"}, [(2, 2)]),
        (2, {"seeds": 1, "isolation": "run"}, [(1, 1), (1, 1), (2, 1)]),
    ],
)
def test_as_many_devices_as_cores(tmp_path, cores, host, sweep, expected):
    assert widths_of(tmp_path, host, cores, **sweep) == expected


@pytest.mark.parametrize("host", [1, 2, 3, 5, 8, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_workers_of_one_round_never_have_more_devices_than_cores(tmp_path, cores, host, count):
    cores(host)
    groups = blocks_of(tmp_path, seeds=count)
    workers = max_workers(groups[0].runs[0].config.engine, groups)
    shares = share_cores(groups, workers)
    assert len(shares) == count
    for first in range(0, count, workers):
        assert sum(share.devices for share in shares[first : first + workers]) <= host
        assert sum(share.cores for share in shares[first : first + workers]) <= host
    assert sum(share.devices for share in shares[-(count % workers or workers) :]) >= min(host, 3)


def test_memory_for_fewer_runs_than_cores_leaves_cores_to_each(tmp_path, cores, monkeypatch):
    cores(8)
    monkeypatch.setattr("harness.launcher.placement.core_shares.free_memory", lambda: 2e9)
    blocks = blocks_of(tmp_path, seeds=4)
    settings = blocks[0].runs[0].config.engine
    assert max_workers(settings, blocks) == 2
    assert share_cores(blocks, 2) == [CoreShare(cores=4, devices=1)] * 4


def test_devices_that_are_named_hold_a_block_side_by_side(tmp_path, cores):
    cores(2)
    blocks = blocks_of(tmp_path, devices=6)
    entries = assign_runs(blocks, blocks[0].runs[0].config.engine, 6)
    assert [(entry.cores, entry.devices) for entry in entries] == [(0, 3), (0, 3)]
    spec = worker_spec(sweep_dir([blocks[0].runs[0].config]), entries[0])
    assert from_env(spec.env).side_by_side
    assert spec.env["JAX_NUM_CPU_DEVICES"] == "3"
    assert POOL_VARIABLE not in spec.env


def test_a_worker_is_told_its_cores_and_that_its_runs_take_turns(tmp_path, cores):
    cores(2)
    blocks = blocks_of(tmp_path)
    entry = assign_runs(blocks, blocks[0].runs[0].config.engine, 2)[0]
    spec = worker_spec(sweep_dir([blocks[0].runs[0].config]), entry)
    assert not from_env(spec.env).side_by_side
    assert (spec.env["JAX_NUM_CPU_DEVICES"], spec.env[POOL_VARIABLE]) == ("1", "1")


@pytest.mark.parametrize("isolation", ["block", "run", "all"])
def test_the_forecast_is_made_of_the_workers_that_start(tmp_path, cores, isolation):
    """Three blocks of three runs on two cores: the last block has both, as its worker will."""
    cores(2)
    blocks = blocks_of(tmp_path, seeds=3, isolation=isolation)
    settings = blocks[0].runs[0].config.engine
    workers = max_workers(settings, blocks)
    plan = forecast(blocks, settings, workers, RunEstimator([]))
    entries = assign_runs(with_meshes(blocks, plan), settings, workers)
    slots = {slot.task: slot for slot in plan.schedule.reservations}
    assert plan.oversubscription == 1.0
    for entry in entries:
        slot = slots[entry.name]
        seconds = {run.name: plan.estimates[run.name].seconds for run in entry.runs}
        assert slot.end - slot.start == pytest.approx(seconds_in_turn(entry.runs, seconds, entry.devices))
    a_run = plan.estimates[blocks[0].runs[0].name].seconds
    units = {"block": 5, "run": 5, "all": 5}[isolation]
    assert plan.schedule.makespan == pytest.approx(units * a_run), "nine runs on two cores"


def test_turns_are_counted_like_the_scheduler_takes_them(tmp_path, cores):
    cores(2)
    (block,) = blocks_of(tmp_path, seeds=1)
    seconds = dict(zip((run.name for run in block.runs), (5.0, 2.0, 2.5), strict=True))
    assert seconds_in_turn(block.runs, seconds, 1) == 9.5
    assert seconds_in_turn(block.runs, seconds, 2) == 5.0
    assert share_cores([block], 4) == [CoreShare(2, 2)]
