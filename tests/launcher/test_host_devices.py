"""Two workers of one host never see the same accelerator: on made-up hosts, with processes that hold them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from harness.config.schema.cluster import MeshConfig
from harness.core import file_locks
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.local import host_devices
from harness.launcher.engines.local.fork_client import ForkServer
from harness.launcher.engines.local.host_devices import HostDevices, find_devices
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.workers.worker_specs import assign_runs, max_workers, shared_devices
from harness.records.run.run_lock import acquire, owner, release
from tests.launcher.support import configs, facts, wait_for


@pytest.fixture
def host(tmp_path, monkeypatch) -> Path:
    """A host of four GPUs, with a folder of its own for locks."""
    (tmp_path / "host" / "dev").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "host" / "dev" / name).touch()
    monkeypatch.setattr(host_devices, "ROOT", tmp_path / "host")
    monkeypatch.setattr(file_locks.tempfile, "gettempdir", lambda: str(tmp_path))
    for variable in host_devices.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "host"


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, "0 1 2 3"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, "2 3"),
        ({"CUDA_VISIBLE_DEVICES": " 3, 1 "}, "3 1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8a,MIG-7"}, "GPU-8a MIG-7"),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, "1"),
    ],
)
@pytest.mark.usefixtures("host")
def test_the_devices_are_those_that_the_shell_shows(environ, names):
    assert find_devices("cuda", environ).names == (*names.split(),)


def test_platforms_are_counted_by_their_device_files(host):
    (host / "dev" / "vfio").mkdir()
    for name in ("0", "1", "vfio"):
        (host / "dev" / "vfio" / name).touch()
    assert find_devices("tpu", {}).names == ("0", "1")
    (host / "dev" / "dri").mkdir()
    for name in ("renderD128", "renderD129", "card0"):
        (host / "dev" / "dri" / name).touch()
    assert find_devices("rocm", {}).names == ("0", "1")
    assert find_devices("rocm", {"ROCR_VISIBLE_DEVICES": "5"}).names == ("0",), "HIP numbers them anew"
    assert find_devices("rocm", {"ROCR_VISIBLE_DEVICES": "5", "HIP_VISIBLE_DEVICES": "1"}).names == ("1",)


@pytest.mark.parametrize(
    ("platform", "environ", "sentence"),
    [
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, r"shows no cuda device \(CUDA_VISIBLE_DEVICES=\)"),
        ("tpu", {}, r"shows no tpu device \(TPU_VISIBLE_CHIPS is not set\)"),
        ("metal", {}, "cluster.platform=metal: .*engine.isolation=all"),
    ],
)
@pytest.mark.usefixtures("host")
def test_what_cannot_be_shared_is_refused(platform, environ, sentence):
    with pytest.raises(UserError, match=sentence):
        find_devices(platform, environ)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_ranges_never_overlap_whatever_comes_and_goes(platform):
    draw, devices = random.Random(3), HostDevices(platform, tuple("abcdefgh"), "")
    taken: list[tuple[str, ...]] = []
    for _ in range(2000):
        busy = [*itertools.chain(*taken)]
        names = devices.range_for(draw.choice((1, 2, 4, 8)), busy)
        if names is None or draw.random() < 0.3:
            taken = draw.sample(taken, len(taken))[1:]
            continue
        assert not {*names} & {*busy}
        assert platform == "cuda" or devices.names.index(names[0]) % len(names) == 0, "a rectangle of chips"
        taken.append(names)


def test_a_part_of_a_tpu_host_is_a_rectangle():
    chips = HostDevices("tpu", tuple("0123"), "four chips")
    assert chips.environment(("2", "3")) == {
        "TPU_VISIBLE_CHIPS": "2,3",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    assert chips.environment(chips.names) == {}, "libtpu knows a whole host"
    with pytest.raises(UserError, match="needs 3 chips, but processes share a TPU host in parts of 1, 2, 4"):
        chips.check_width(3, "xs/seed0")
    with pytest.raises(UserError, match=r"needs 8 tpu devices .* shows 4"):
        chips.check_width(8, "xs/seed0")


@pytest.fixture
def engine(tmp_path, host):
    server = ForkServer(("tests.launcher.device_worker",))
    yield LocalEngine(tmp_path / "logs", "tests.launcher.device_worker", server)
    server.close()


def spec(folder: Path, name: str, devices: int = 2, processes: int = 1) -> WorkerSpec:
    run = folder / name
    run.mkdir(exist_ok=True)
    env = {"SHOWN": str(folder / f"{name}.json")}
    return WorkerSpec(name, (run,), env, folder / f"{name}.log", (), devices, "cuda", processes)


def shown(folder: Path, name: str) -> list[str]:
    """The devices that each process of a worker saw."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name}.json*"))]


def test_two_blocks_at_once_never_share_a_device(engine, tmp_path):
    lines: list[str] = []
    specs = [spec(tmp_path, name) for name in ("first", "second", "third")]
    engine.check(specs, [], lines.append)
    assert lines == [
        "This host shows 4 cuda devices (CUDA_VISIBLE_DEVICES is not set); each worker sees 2 of them, which "
        "no other worker sees."
    ]
    first, second, third = [engine.submit(one) for one in specs]
    wait_for(lambda: shown(tmp_path, "first") and shown(tmp_path, "second"))
    assert (shown(tmp_path, "first"), shown(tmp_path, "second")) == (["0,1"], ["2,3"])
    assert engine.waiting(third) == "waits for 2 of 4 cuda devices; busy: 0, 1, 2, 3"
    assert engine.poll(third) is None
    assert engine.waiting(first) == ""
    engine.cancel(first, hard=True)
    wait_for(lambda: engine.poll(first))
    wait_for(lambda: engine.poll(third) is None and shown(tmp_path, "third"))
    assert shown(tmp_path, "third") == ["0,1"]
    for worker in (second, third):
        engine.cancel(worker, hard=True)
        wait_for(lambda worker=worker: engine.poll(worker))


def test_ranges_lie_inside_what_the_shell_shows_and_processes_divide_them(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,9")
    group = spec(tmp_path, "group", 2, processes=2)
    engine.check([group], [], lambda _: None)
    worker = engine.submit(group)
    wait_for(lambda: len(shown(tmp_path, "group")) == 2)
    assert sorted(shown(tmp_path, "group")) == ["5", "7"]
    engine.cancel(worker, hard=True)
    wait_for(lambda: engine.poll(worker))


def test_a_device_of_another_sweep_is_not_taken(engine, tmp_path):
    one = spec(tmp_path, "one", 3)
    engine.check([one], [], lambda _: None)
    taken = engine._device_lock("1")
    acquire(taken)  # as a worker of another driver does
    try:
        assert owner(taken) is not None
        worker = engine.submit(one)
        wait_for(lambda: shown(tmp_path, "one"))
        assert shown(tmp_path, "one") == ["0,2,3"], "not adjacent, but free"
        other = engine.submit(spec(tmp_path, "other", 1))
        assert engine.waiting(other) == "waits for 1 of 4 cuda devices; busy: 0, 1, 2, 3"
        engine.cancel(other, hard=False)
        assert engine.poll(other).preempted
        engine.cancel(worker, hard=True)
        wait_for(lambda: engine.poll(worker))
    finally:
        release(taken)


@pytest.mark.parametrize(
    ("isolation", "workers", "widths"), [("block", 1, [4]), ("run", 2, [2, 2]), ("all", 1, [4])]
)
@pytest.mark.usefixtures("host")
def test_as_many_workers_as_devices_have_room_for(tmp_path, isolation, workers, widths):
    made = configs(tmp_path, variants=("mha", "short"), seeds=(0,), isolation=isolation, workers=0)
    for config in made:
        config.mesh, config.cluster.platform = MeshConfig(data=2), "cuda"
    blocks = make_blocks([Run(config, facts(config), run_dir(sweep_dir(made), config)) for config in made])
    settings = made[0].engine
    assert shared_devices(settings, blocks) == 4
    assert max_workers(settings, blocks) == workers
    assert [entry.devices for entry in assign_runs(blocks, settings, workers)] == widths
    settings.devices = 8
    with pytest.raises(UserError, match=r"engine\.devices=8, but this host shows 4 cuda devices"):
        max_workers(settings, blocks)


def test_the_folder_of_locks_is_ones_own(tmp_path, host):
    folder = file_locks.host_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(UserError, match="no folder that you alone can write"):
        file_locks.host_dir()
