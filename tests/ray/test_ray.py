"""Sweeps through a real Ray of two nodes, started here: `make test-ray`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config.engines import RayConfig
from harness.config.errors import UserError
from harness.fleet.engines import Order
from harness.fleet.engines.ray import RayEngine
from harness.records.claim import worker_of
from harness.records.layout import RunDir, SweepDir
from harness.records.status import State, read_status
from tests.fleet.soak.whole import assert_as
from tests.fleet.support import configs, train, wait_for
from tests.ray.cluster import ROOT, add_node, ray_cluster
from tests.ray.driver import drive

pytestmark = pytest.mark.slow
TINY = ["variant=mha,short", "seed=0,1", "scale=xs", "data.sequence_length=32", "evaluation.tokens=1024"]
TINY += ["evaluation.points=4", "checkpoint.every=20"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture
def calm(tmp_path) -> SweepDir:
    """The same sweep of fake workers, undisturbed and without Ray."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("FAKE_PACE", "0")
        train(configs(tmp_path / "calm"))
    return SweepDir(tmp_path / "calm" / "trial")


def finish(driver: subprocess.Popen) -> str:
    out, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, out
    return out


def in_cluster(cluster: Any, question: str) -> Any:
    code = f"import json, ray; ray.init(address='auto', logging_level='ERROR'); print(json.dumps({question}))"
    env = os.environ | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def groups(cluster: Any) -> list[dict[str, Any]]:
    """Places that were not given back."""
    listed = in_cluster(cluster, "[*ray.util.placement_group_table().values()]")
    return [each for each in listed if each["state"] != "REMOVED"]


def nothing_is_left(cluster: Any) -> bool:
    """Neither an actor nor a place that was not given back."""
    return in_cluster(cluster, "ray.util.list_named_actors(all_namespaces=True)") == groups(cluster) == []


def lose_a_node(cluster: Any) -> None:
    """At once, with all that runs there; another one takes its place."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    add_node(cluster)


def at_work(runs: Path, steps: int) -> list[RunDir]:
    return [run for run in SweepDir(runs / "trial").runs() if read_status(run).step >= steps]


def real(runs: Path, *engine: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harness.cli", "sweep", *TINY, *engine, f"runs={runs}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_real_sweep_that_lost_a_node_is_that_of_the_local_engine_bit_for_bit(cluster, tmp_path):
    finish(real(tmp_path / "calm"))
    driver = real(tmp_path / "ray", "engine=ray", f"engine.ray.address={cluster.address}")
    sweep = SweepDir(tmp_path / "ray" / "adhoc")
    wait_for(
        lambda: [run for run in sweep.runs() if read_status(run).step > 20] == [*sweep.runs()] != [], 300
    )
    lose_a_node(cluster)
    assert "was lost" in finish(driver)
    assert_as(SweepDir(tmp_path / "calm" / "adhoc"), sweep)
    assert nothing_is_left(cluster)


def test_runs_of_two_processes_on_two_nodes_are_those_of_the_local_engine(cluster, tmp_path):
    """One with two devices a process, one with one: both at once, and each on both nodes."""
    sweeps = {}
    for engine in ("local", "ray"):
        chosen = ["engine=ray", f"engine.ray.address={cluster.address}"] if engine == "ray" else []
        drivers = [several(tmp_path / engine, devices, *chosen) for devices in (4, 2)]
        sweeps[engine] = [SweepDir(tmp_path / engine / f"data{devices}") for devices in (4, 2)]
        if engine == "ray":
            with both_held(sweeps["ray"]):
                assert [len({*each["bundles_to_node_id"].values()}) for each in groups(cluster)] == [2, 2]
                lose_a_node(cluster)
        said = [finish(driver) for driver in drivers]
    assert all("of 2: its node" in each for each in said)
    for calm, sweep in zip(*sweeps.values(), strict=True):
        assert_as(calm, sweep)
    assert nothing_is_left(cluster)


def several(runs: Path, devices: int, *engine: str) -> subprocess.Popen:
    """A sweep of one run over two processes."""
    shape = [f"mesh.data={devices}", "engine.processes=2", f"experiment_name=data{devices}"]
    return real(runs, "variant=mha", "seed=0", "scale.tokens=32000", "schedule.branches=[]", *shape, *engine)


@contextlib.contextmanager
def both_held(sweeps: list[SweepDir]) -> Iterator[None]:
    """Process 0 of each run stands still, in its stride, so that neither is over before the other begins."""
    held: dict[Path, int] = {}

    def all_held() -> bool:
        for sweep in sweeps:
            if sweep.path not in held and at_step(sweep, 20):
                [run] = sweep.runs()
                held[sweep.path] = read_status(run).writer.pid
                os.kill(held[sweep.path], signal.SIGSTOP)
        return len(held) == len(sweeps)

    try:
        wait_for(all_held, 200)
        yield
    finally:
        for pid in held.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def at_step(sweep: SweepDir, step: int) -> bool:
    statuses = [read_status(run) for run in sweep.runs()]
    return [each.state is State.running and each.step >= step for each in statuses] == [True]


def test_a_killed_driver_finds_its_workers_again(cluster, tmp_path, calm):
    first = drive(tmp_path, cluster.address)
    wait_for(lambda: len(at_work(tmp_path, 6)) == 4, 90)
    first.kill()
    first.wait()
    workers = {str(run.path): worker_of(run) for run in at_work(tmp_path, 6)}
    assert all(worker and worker.alive() for worker in workers.values())
    finish(drive(tmp_path, cluster.address))
    for run in at_work(tmp_path, 6):
        assert len((run.path / "attempts.txt").read_text().split()) == 1, "it was trained by the first worker"
    assert_as(calm, SweepDir(tmp_path / "trial"))
    assert nothing_is_left(cluster)


def test_a_stop_reaches_workers_on_hosts_that_are_not_this_one(cluster, tmp_path, calm):
    driver = drive(tmp_path, cluster.address)
    wait_for(lambda: len(at_work(tmp_path, 6)) == 4, 90)
    driver.kill()
    driver.wait()
    code = (
        "import socket, sys; socket.gethostname = lambda: 'elsewhere'; "
        "from harness.cli import main; sys.argv[1:] = ['stop', sys.argv[1]]; main()"
    )
    stop = [sys.executable, "-c", code, str(tmp_path / "trial")]
    said = subprocess.run(stop, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    assert said.splitlines()[-1] == "2 workers in Ray were told to save and leave"
    wait_for(lambda: {read_status(run).state for run in at_work(tmp_path, 0)} == {State.preempted})
    finish(drive(tmp_path, cluster.address))
    assert_as(calm, SweepDir(tmp_path / "trial"))
    assert nothing_is_left(cluster)


def test_a_lost_node_costs_no_attempt_and_leaves_no_trace(cluster, tmp_path, calm):
    driver = drive(tmp_path, cluster.address, attempts=1)
    wait_for(lambda: len(at_work(tmp_path, 6)) == 4, 90)
    lose_a_node(cluster)
    assert "was lost" in finish(driver)
    assert_as(calm, SweepDir(tmp_path / "trial"))
    attempts = [len((run.path / "attempts.txt").read_text().split()) for run in at_work(tmp_path, 20)]
    assert sorted(attempts) == [1, 1, 2, 2]
    assert nothing_is_left(cluster)


def test_told_to_leave_every_worker_saves_and_nothing_is_left(cluster, tmp_path, calm):
    driver = drive(tmp_path, cluster.address)
    wait_for(lambda: len(at_work(tmp_path, 6)) == 4, 90)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=60)
    states = {read_status(run).state for run in SweepDir(tmp_path / "trial").runs()}
    assert states == {State.preempted}
    assert nothing_is_left(cluster)
    finish(drive(tmp_path, cluster.address))
    assert_as(calm, SweepDir(tmp_path / "trial"))


def test_in_another_cluster_the_same_command_goes_on_after_a_lost_head(tmp_path, calm):
    with ray_cluster() as first:
        driver = drive(tmp_path, first.address)
        wait_for(lambda: len(at_work(tmp_path, 6)) == 4, 90)
        first.remove_node(first.head_node, allow_graceful=False)
        out, _ = driver.communicate(timeout=60)
        assert "the head was lost" in out.splitlines()[-1]
    with ray_cluster() as second:
        finish(drive(tmp_path, second.address))
        assert_as(calm, SweepDir(tmp_path / "trial"))
        assert nothing_is_left(second)


def test_a_ray_that_was_started_here_ends_with_the_sweep(tmp_path, calm):
    finish(drive(tmp_path, None))
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
    assert nothing_is_left(cluster)


def test_a_node_without_the_data_is_found_before_anything_starts(cluster, tmp_path):
    engine = RayEngine(RayConfig(cluster.address), tmp_path / "workers")
    order = Order("xs/seed0", (tmp_path / "run",), {}, tmp_path / "log")
    with pytest.raises(UserError, match="no_such_data is not there"):
        engine.check([order], [tmp_path / "no_such_data"], print)
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["probe.log"]
    assert nothing_is_left(cluster)
