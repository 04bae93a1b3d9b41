"""Sweeps through a real Ray of two nodes, started here: `make test-ray`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config.schema.engine import RayConfig
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.ray.process_actor import ProcessActor, ProcessTask
from harness.launcher.engines.ray.ray_engine import LINGER_SECONDS, RayEngine
from harness.launcher.engines.ray.slice_shape import slice_name
from harness.launcher.engines.ray.workers import ActorProcess, RayWorker, release_placement, request_placement
from harness.launcher.engines.worker_processes import ProcessGroupHandle
from harness.records.paths import SweepDir
from harness.records.run.checkpoint_manifest import manifest_steps
from harness.records.run.status import State, read_status
from tests.launcher.soak.whole import assert_as
from tests.launcher.support import configs, train, wait_for
from tests.ray.cluster import ROOT, actors, add_node, groups, ray_cluster
from tests.ray.driver import drive

pytestmark = pytest.mark.slow
TINY = ["variant=mha,short", "seed=0,1", "scale=xs", "data.sequence_length=32", "evaluation.tokens=1024"]
TINY += ["evaluation.points=4", "scale.tokens=16000", "checkpoint.every=50"]
HELD = 8
"""Step; the fake worker saves at 5."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> SweepDir:
    """The same sweep of fake workers, undisturbed and without Ray."""
    runs = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_PACE", "0")
        train(configs(runs))
    return SweepDir(runs / "trial")


def finish(driver: subprocess.Popen) -> str:
    out, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, out
    return out


def nothing_is_left(cluster: Any) -> None:
    """Neither an actor nor a place that was not given back, as soon as Ray has heard of it: long before they
    would go by themselves."""
    wait_for(lambda: actors(cluster) == groups(cluster) == [], LINGER_SECONDS / 6)


def lose_a_node(cluster: Any) -> None:
    """At once, with all that runs there; another one takes its place."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    add_node(cluster)


@contextlib.contextmanager
def held(runs: Path, address: str, **settings) -> Iterator[subprocess.Popen]:
    """The driver of a sweep of which every run stands still in its middle, until this is left."""
    sweep = SweepDir(runs / "trial")
    sweep.path.mkdir()
    names = [f"xs/{variant}/seed{seed}" for variant in ("mha", "short") for seed in (0, 1)]
    faults = sweep.path / "faults.json"
    faults.write_text(json.dumps({name: {"at": HELD, "do": "hold"} for name in names}))
    driver = drive(runs, address, **settings)
    try:
        wait_for(lambda: [read_status(run).step for run in sweep.runs()] == [HELD] * len(names), 90)
        yield driver
    finally:
        faults.unlink()


def real(runs: Path, *engine: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harness.cli", "sweep", *TINY, *engine, f"runs={runs}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_real_sweep_that_lost_a_node_is_that_of_the_local_engine_bit_for_bit(cluster, tmp_path):
    calm = real(tmp_path / "calm")
    driver = real(tmp_path / "ray", "engine=ray", f"engine.ray.address={cluster.address}")
    sweep = SweepDir(tmp_path / "ray" / "adhoc")
    wait_for(lambda: [run for run in sweep.runs() if manifest_steps(run)] == [*sweep.runs()] != [], 300)
    lose_a_node(cluster)
    assert "was lost" in finish(driver)
    finish(calm)
    assert_as(SweepDir(tmp_path / "calm" / "adhoc"), sweep)
    nothing_is_left(cluster)


def test_runs_of_two_processes_on_two_nodes_are_those_of_the_local_engine(cluster, tmp_path):
    """One with two devices a process, one with one: both at once, and each on both nodes."""
    undisturbed = [several(tmp_path / "calm", devices) for devices in (4, 2)]
    chosen = ["engine=ray", f"engine.ray.address={cluster.address}"]
    places = ["engine.ray.resources.cpu=CPU", "engine.ray.resources.cpu=slot"]
    drivers = [
        several(tmp_path / "ray", devices, place, *chosen)
        for devices, place in zip((4, 2), places, strict=True)
    ]
    calm, sweeps = ([SweepDir(tmp_path / each / f"data{of}") for of in (4, 2)] for each in ("calm", "ray"))
    with both_held(sweeps):
        assert [len({*each["bundles_to_node_id"].values()}) for each in groups(cluster)] == [2, 2]
        lose_a_node(cluster)
    said = [finish(each) for each in drivers]
    assert all("of 2: its node" in each for each in said)
    for each in undisturbed:
        finish(each)
    for one, other in zip(calm, sweeps, strict=True):
        assert_as(one, other)
    nothing_is_left(cluster)


def several(runs: Path, devices: int, *engine: str) -> subprocess.Popen:
    """A sweep of one run over two processes."""
    shape = [f"mesh.data={devices}", "engine.processes=2", f"experiment_name=data{devices}"]
    return real(runs, "variant=mha", "seed=0", "schedule.branches=[]", *shape, *engine)


@contextlib.contextmanager
def both_held(sweeps: list[SweepDir]) -> Iterator[None]:
    """Process 0 of each run stands still, in its stride, so that neither is over before the other begins."""
    held: dict[Path, int] = {}

    def all_held() -> bool:
        for sweep in sweeps:
            if sweep.path not in held and (pid := has_saved(sweep)):
                held[sweep.path] = pid
                os.kill(pid, signal.SIGSTOP)
        return len(held) == len(sweeps)

    try:
        wait_for(all_held, 200)
        yield
    finally:
        for pid in held.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def has_saved(sweep: SweepDir) -> int:
    """The process that trains its one run, once there is a checkpoint."""
    for run in sweep.runs():
        status = read_status(run)
        if status.state is State.running and manifest_steps(run):
            return status.writer.pid
    return 0


def test_a_killed_driver_finds_its_workers_again(cluster, tmp_path, calm):
    with held(tmp_path, cluster.address) as first:
        first.kill()
        first.wait()
        second = drive(tmp_path, cluster.address)
        assert second.stdout is not None
        found = [next(line for line in second.stdout if line.startswith("adopted")) for _ in range(2)]
        assert sorted(found) == ["adopted xs/seed0\n", "adopted xs/seed1\n"]
    finish(second)
    for run in SweepDir(tmp_path / "trial").runs():
        assert len((run.path / "attempts.txt").read_text().split()) == 1, "it was trained by the first worker"
    assert_as(calm, SweepDir(tmp_path / "trial"))
    nothing_is_left(cluster)


def test_a_stop_reaches_workers_on_hosts_that_are_not_this_one(cluster, tmp_path, calm):
    sweep = SweepDir(tmp_path / "trial")
    with held(tmp_path, cluster.address) as driver:
        driver.kill()
        driver.wait()
        code = (
            "import socket, sys; socket.gethostname = lambda: 'elsewhere'; "
            "from harness.cli import main; sys.argv[1:] = ['stop', sys.argv[1]]; main()"
        )
        stop = [sys.executable, "-c", code, str(sweep.path)]
        said = subprocess.run(stop, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
        assert said.splitlines()[-1] == "2 workers in Ray were told to save and leave"
        wait_for(lambda: {read_status(run).state for run in sweep.runs()} == {State.preempted})
    finish(drive(tmp_path, cluster.address))
    assert_as(calm, sweep)
    nothing_is_left(cluster)


def test_a_lost_node_costs_no_attempt_and_leaves_no_trace(cluster, tmp_path, calm):
    sweep = SweepDir(tmp_path / "trial")
    with held(tmp_path, cluster.address, attempts=1) as driver:
        lose_a_node(cluster)
    assert "was lost" in finish(driver)
    assert_as(calm, sweep)
    attempts = [len((run.path / "attempts.txt").read_text().split()) for run in sweep.runs()]
    assert sorted(attempts) == [1, 1, 2, 2]
    nothing_is_left(cluster)


def test_told_to_leave_every_worker_saves_and_nothing_is_left(cluster, tmp_path, calm):
    sweep = SweepDir(tmp_path / "trial")
    with held(tmp_path, cluster.address) as driver:
        driver.send_signal(signal.SIGTERM)
        driver.communicate(timeout=60)
        assert {read_status(run).state for run in sweep.runs()} == {State.preempted}
        nothing_is_left(cluster)
    finish(drive(tmp_path, cluster.address))
    assert_as(calm, sweep)


def test_in_another_cluster_the_same_command_goes_on_after_a_lost_head(cluster, tmp_path, calm):
    with ray_cluster(cpus=4, nodes=1) as first, held(tmp_path, first.address) as driver:
        first.remove_node(first.head_node, allow_graceful=False)
        out, _ = driver.communicate(timeout=60)
        assert "the head was lost" in out.splitlines()[-1]
        assert "raylet" not in out, "Ray's own log"
    finish(drive(tmp_path, cluster.address))
    assert_as(calm, SweepDir(tmp_path / "trial"))
    nothing_is_left(cluster)


def test_a_ray_that_was_started_here_ends_with_the_sweep(tmp_path, calm):
    assert "authentication" not in finish(drive(tmp_path, None)), "Ray's own warnings"
    assert_as(calm, SweepDir(tmp_path / "trial"))


@pytest.mark.parametrize(
    ("address", "settings", "said"),
    [
        ("127.0.0.1:9", {}, "nobody answers"),
        ("", {"devices": 8, "isolation": "all"}, "needs 8 CPU on one node"),
    ],
)
def test_mistakes_are_one_sentence(cluster, tmp_path, address, settings, said):
    driver = drive(tmp_path, address or cluster.address, **settings)
    out, _ = driver.communicate(timeout=60)
    assert said in out.splitlines()[-1]
    nothing_is_left(cluster)


def test_a_node_without_the_data_is_found_before_anything_starts(cluster, tmp_path):
    engine = RayEngine(RayConfig(cluster.address), tmp_path / "workers")
    order = WorkerSpec("xs/seed0", (tmp_path / "run",), {}, tmp_path / "log")
    with pytest.raises(UserError, match="no_such_data is not there"):
        engine.check([order], [tmp_path / "no_such_data"], print)
    assert not [*(tmp_path / "workers").iterdir()]
    nothing_is_left(cluster)


def test_ray_tells_slices_apart_and_keeps_a_worker_on_its_own(cluster, tmp_path):
    spread = WorkerSpec("xs/seed0", (), {}, tmp_path / "log", devices=8, platform="tpu", processes=2)
    with pytest.raises(UserError, match="this Ray has 4 and 4, each a slice of its own"):
        RayEngine(RayConfig(cluster.address), tmp_path / "workers").check([spread], [], print)
    ray: Any = importlib.import_module("ray")  # `import ray` reads to pyright as this folder
    with ray.init(cluster.address, namespace="slices", log_to_driver=False):
        slices = {node["NodeID"]: slice_name(node) for node in ray.nodes() if node["Alive"]}
        for name in sorted({*slices.values()}) * 2:
            worker = RayWorker(f"on {name}", {"TPU": 4}, slice=name)
            worker.process_group = ProcessGroupHandle(
                [ActorProcess(worker, ProcessTask(("this",), {}, str(tmp_path), str(tmp_path / "log"), 60))]
            )
            request_placement(ray, ray.remote(ProcessActor), worker)
            assert ray.get(worker.leader.actor.wait.remote()) == 0
            [group] = groups(cluster)
            assert [slices[node] for node in group["bundles_to_node_id"].values()] == [name]
            release_placement(ray, worker)
            nothing_is_left(cluster)
