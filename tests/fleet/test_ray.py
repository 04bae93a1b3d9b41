"""The engine of Ray over a made-up Ray, and what lives inside it over none. With a real one: tests/ray."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.config.compose import compose
from harness.config.engines import RayConfig
from harness.config.errors import UserError
from harness.config.processes import from_env
from harness.fleet.engines import Exit, Order, make_engine, ray, ray_cluster
from harness.fleet.engines.gang import GRACE
from harness.fleet.engines.ray import RayEngine
from harness.fleet.engines.ray_cluster import AGAIN, LOST, Head
from harness.fleet.engines.ray_keeper import HERE, Keeper, Task
from harness.fleet.engines.ray_slices import LABEL
from harness.records.atomic import write_sealed
from harness.records.status import Writer
from tests.fleet.fake_ray import Actor, ActorUnavailableError, FakeRay, RayError
from tests.fleet.support import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    monkeypatch.setattr(ray, "FRESH", 0.0)
    knock = ray_cluster._knock
    monkeypatch.setattr(ray_cluster, "_knock", lambda *given: given[0] == "head:1" or knock(*given))
    monkeypatch.setattr(ray_cluster, "_speaks_http2", lambda address: True)
    return FakeRay()


@pytest.fixture
def engine(tmp_path, fake) -> RayEngine:
    made = RayEngine(RayConfig(), tmp_path, ray=fake)
    made.check([order(tmp_path)], [], print)
    return made


def order(
    folder: Path, name: str = "xs/seed0", devices: int = 2, platform: str = "cpu", processes: int = 1
) -> Order:
    log, env = folder / "log", {"A": "1"}
    return Order(name, (folder / "run",), env, log, devices=devices, platform=platform, processes=processes)


def only(fake: FakeRay):
    (actor,) = fake.actors.values()
    return actor


def test_a_worker_is_an_actor_in_a_group_of_its_own_until_it_ends(engine, fake, tmp_path):
    handle = engine.submit(order(tmp_path))
    actor = only(fake)
    assert [*fake.groups.values()] == [([{"CPU": 2}], "STRICT_PACK", "detached")]
    assert (actor.options["lifetime"], actor.options["num_cpus"]) == ("detached", 2)
    assert actor.given[1].argv[1:] == ("harness.worker", str(tmp_path / "run"))
    assert engine.poll(handle) is None
    assert engine.waiting(handle)
    actor.begin()
    assert engine.poll(handle) is None
    assert not engine.waiting(handle)
    actor.say("wait", 3)
    assert engine.poll(handle) == Exit(3, "the worker ended with status 3")
    assert (fake.actors, fake.groups) == ({}, {}), "its place is given back"


def test_a_lost_node_is_no_failure_of_a_run_and_a_lost_actor_is(engine, fake, tmp_path):
    for living, taken_away in (({"n1"}, False), ({"n2"}, True)):
        handle = engine.submit(order(tmp_path))
        actor = only(fake)
        actor.begin(node="n1")
        assert engine.poll(handle) is None
        fake.living = living
        actor.say("wait", RayError("gone\nat length"))
        assert engine.poll(handle).taken_away is taken_away
        assert "\n" not in handle.exit.words
        assert (fake.actors, fake.groups) == ({}, {})


def test_an_actor_out_of_reach_is_asked_again(engine, fake, tmp_path):
    handle = engine.submit(order(tmp_path))
    actor = only(fake)
    actor.begin()
    actor.say("wait", ActorUnavailableError("for now"))
    assert engine.poll(handle) is None
    actor.say("wait", 0)
    wait_for(lambda: engine.poll(handle) == Exit(0, "the worker ended with status 0"))


def test_what_has_not_begun_is_put_away_and_what_has_is_told(engine, fake, tmp_path):
    waits, works = engine.submit(order(tmp_path)), engine.submit(order(tmp_path, "b"))
    (actor,) = [each for name, each in fake.actors.items() if name.startswith("b#")]
    actor.begin()
    assert engine.poll(works) is None
    engine.cancel(waits, hard=False)
    engine.cancel(works, hard=False)
    engine.cancel(works, hard=True)
    assert engine.poll(waits) is not None
    assert engine.poll(works) is None
    assert [arguments for method, arguments in actor.calls if method == "tell"] == [(15,), (9,)]
    assert [*fake.actors.values()] == [actor]


def several(engine: RayEngine, fake: FakeRay, folder: Path) -> tuple[Any, Actor, Actor]:
    """A worker of two processes, at work on two nodes."""
    handle = engine.submit(order(folder, devices=4, processes=2))
    first, second = (fake.actors[name] for name in sorted(fake.actors))
    assert engine.waiting(handle)
    first.begin(pid=1, node="n1")
    assert engine.poll(handle) is None
    assert engine.waiting(handle), "all begin, or none has"
    second.begin(pid=2, node="n2")
    assert engine.poll(handle) is None
    assert not engine.waiting(handle)
    return handle, first, second


def test_processes_of_a_run_are_actors_in_one_group(engine, fake, tmp_path):
    handle, *actors = several(engine, fake, tmp_path)
    assert [*fake.groups.values()] == [([{"CPU": 2}] * 2, "PACK", "detached")]
    assert [each.options["scheduling_strategy"][1] for each in actors] == [0, 1]
    tasks = [each.given[1] for each in actors]
    made = [from_env(each.env) for each in tasks]
    assert [(each.index, each.count, each.host) for each in made] == [(0, 2, HERE), (1, 2, HERE)]
    assert made[0].start == made[1].start
    assert [Path(each.log).name for each in tasks] == ["log", "log.1.log"]
    engine.cancel(handle, hard=False)
    assert [("tell", (15,)) in each.calls for each in actors] == [True, True]
    for each in actors:
        each.say("wait", 0)
    assert engine.poll(handle) == Exit(0, "the worker ended with status 0")
    assert (fake.actors, fake.groups) == ({}, {})


def test_a_lost_node_explains_what_the_other_processes_did(engine, fake, tmp_path):
    handle, first, second = several(engine, fake, tmp_path)
    first.say("wait", 3)
    assert engine.poll(handle) is None
    fake.living = {"n1"}
    second.say("wait", RayError("gone"))
    assert engine.poll(handle) == Exit(None, "process 1 of 2: its node elsewhere was lost", taken_away=True)
    assert (fake.actors, fake.groups) == ({}, {})


def test_one_that_outlives_the_others_is_told_once(engine, fake, tmp_path):
    handle, first, second = several(engine, fake, tmp_path)
    second.say("wait", -9)
    engine.poll(handle)
    handle.gang.clock = lambda: time.monotonic() + GRACE + 1
    for _ in range(3):
        assert engine.poll(handle) is None
    assert [arguments for method, arguments in first.calls if method == "tell"] == [(9,)]


def test_a_driver_that_comes_back_finds_all_processes_of_a_run_or_none(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "probe", lambda *_: None)
    config = RayConfig("head:1")
    engine = RayEngine(config, tmp_path, ray=fake)
    engine.check([order(tmp_path)], [], print)
    several(engine, fake, tmp_path)
    again = RayEngine(config, tmp_path, ray=fake)
    again.check([order(tmp_path)], [], print)
    assert again.adopt(Writer("elsewhere", 1, ""), order(tmp_path)).exit is None
    del fake.actors[max(fake.actors)]
    fake.groups["a group whose actor went with its node"] = None
    last = RayEngine(config, tmp_path, ray=fake)
    last.check([order(tmp_path)], [], print)
    assert last.adopt(Writer("elsewhere", 1, ""), order(tmp_path)).exit
    assert (fake.actors, fake.groups) == ({}, {})


def test_ray_is_asked_once_for_all_and_holds_few_that_wait(engine, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "AHEAD", 3)
    handles = [engine.submit(order(tmp_path, f"b{number}")) for number in range(10)]
    assert len(fake.actors) == 3
    assert [engine.waiting(each).split()[0] for each in handles] == ["is"] * 3 + ["waits"] * 7
    monkeypatch.setattr(ray, "SOON", 0.0)
    assert [engine.waiting(each).split()[0] for each in handles] == ["waits"] * 10
    monkeypatch.setattr(ray, "FRESH", 60.0)
    engine._asked, before = float("-inf"), fake.questions
    for handle in handles:
        engine.poll(handle)
    assert fake.questions == before + 1
    monkeypatch.setattr(ray, "FRESH", 0.0)
    engine.cancel(handles[9], hard=False)
    for _ in range(9):
        for actor in [*fake.actors.values()]:
            actor.begin()
            actor.say("wait", 0)
        engine.poll(handles[0])
    assert [handle.exit.code for handle in handles] == [0] * 9 + [None], "a cancelled one is not placed"
    assert (fake.actors, fake.groups) == ({}, {})


def test_a_driver_that_comes_back_finds_what_works_and_what_waits(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "probe", lambda *_: None)
    monkeypatch.setattr(ray, "FOUND", 0.05)
    names, engines = ("works", "ended", "waits"), []
    for _ in range(2):
        engines.append(RayEngine(RayConfig("head:1"), tmp_path, ray=fake))
        engines[-1].check([order(tmp_path)], [], print)
        if len(engines) == 1:
            for name in names:
                engines[0].submit(order(tmp_path, name))
            actors = {name.partition("#")[0]: actor for name, actor in fake.actors.items()}
            actors["works"].begin(pid=11)
            actors["ended"].begin(pid=12)
            actors["ended"].say("wait", 0)
    assert [name.partition("#")[0] for name in fake.actors] == ["works"], "the others were put away"
    assert engines[1].adopt(Writer("elsewhere", 12, ""), order(tmp_path)).exit.code is None
    found = engines[1].adopt(Writer("elsewhere", 11, ""), order(tmp_path, "works"))
    assert engines[1].poll(found) is None
    with pytest.raises(UserError, match="outside this Ray"):
        engines[1].adopt(Writer.here(), order(tmp_path))


def test_workers_are_told_to_stop_without_their_driver(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "probe", lambda *_: None)
    monkeypatch.setattr(ray, "FOUND", 0.05)
    assert ray.stop_workers(tmp_path, fake) == 0, "no driver was here"
    engine = RayEngine(RayConfig("auto"), tmp_path, ray=fake)
    engine.check([order(tmp_path)], [], print)
    _, *actors = several(engine, fake, tmp_path)
    engine.submit(order(tmp_path, "waits"))
    engine.close()
    with pytest.raises(UserError, match="on one node"):
        RayEngine(RayConfig("auto"), tmp_path, ray=fake).check([order(tmp_path, devices=9)], [], print)
    assert ray.stop_workers(tmp_path, fake) == 1
    assert fake.initialised["address"] == "head:1"
    assert [("tell", (15,)) in each.calls for each in actors] == [True, True]
    assert sorted(fake.actors.values(), key=id) == sorted(actors, key=id), "what only waited is put away"
    for each in actors:
        each.say("wait", 3)
    assert ray.stop_workers(tmp_path, fake) == 0
    assert (fake.actors, fake.groups, [*tmp_path.glob("ray.json")]) == ({}, {}, [])


def test_a_cluster_that_does_not_answer_a_stop_is_one_sentence(tmp_path):
    write_sealed(tmp_path / "ray.json", {"address": f"127.0.0.1:{free_port()}"})
    with pytest.raises(UserError, match=r"cannot be asked now \(.*refused\); if that cluster has ended, so"):
        ray.stop_workers(tmp_path, FakeRay())


def test_a_sweep_finds_its_own_actors_and_no_others(fake, tmp_path):
    spaces = []
    for name in ("a", "b", "a"):
        RayEngine(RayConfig(), tmp_path / name, ray=fake).check([order(tmp_path)], [], print)
        spaces.append(fake.initialised["namespace"])
    assert spaces[0] == spaces[2] != spaces[1]


def test_ray_does_not_take_the_driver_s_signals(engine, fake, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(fake, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: None))
    RayEngine(RayConfig(), tmp_path, ray=fake).check([order(tmp_path)], [], print)
    assert signal.getsignal(signal.SIGTERM) is before


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "given", "said"),
    [
        ("nonsense", {}, "give host:port"),
        ("127.0.0.1:PORT", {}, "nobody answers"),
        (None, {"devices": 5}, "needs 5 CPU on one node, and the most that one has is 4"),
        (None, {"devices": 9, "processes": 3}, "3 places of 3 CPU, each on one node, and .* have 2"),
        (None, {"devices": 4, "processes": 2, "platform": "tpu"}, "this Ray has 4, 4: give as many"),
        (None, {"platform": "cuda"}, "needs 2 GPU on one node, and the most that one has is 0"),
        (None, {"platform": "rocm"}, r"\+engine.ray.resources.rocm=NAME"),
    ],
)
def test_mistakes_are_said_before_anything_starts(fake, tmp_path, address, given, said):
    address = address and address.replace("PORT", str(free_port()))
    with pytest.raises(UserError, match=said):
        RayEngine(RayConfig(address), tmp_path, ray=fake).check([order(tmp_path, **given)], [], print)
    assert (fake.actors, fake.groups, fake.shut) == ({}, {}, int(address is None))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_is_no_head_is_not_waited_for(tmp_path, monkeypatch, answer):
    """As the dashboard's port, or one that hangs up."""
    monkeypatch.setattr(ray, "probe", lambda *_: None)
    fake = FakeRay()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_all, args=(server, answer), daemon=True).start()
        config = RayConfig(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match="what answers there is no head of Ray"):
            RayEngine(config, tmp_path, ray=fake).check([order(tmp_path)], [], print)
    assert not fake.initialised


def answer_all(server: socket.socket, answer: bytes) -> None:
    for _ in range(2):
        with server.accept()[0] as there:
            there.settimeout(0.2)
            with contextlib.suppress(OSError):
                there.recv(100)
            there.sendall(answer)


def test_a_head_that_is_silent_for_long_is_lost(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = Head(f"127.0.0.1:{server.getsockname()[1]}")
        head.look(100.0)
    head.look(100.0 + 2 * AGAIN)
    assert not head.answers(100.0 + 2 * AGAIN)
    with pytest.raises(UserError, match=r"the head was lost \(.*refused\).*the same command goes on"):
        head.look(100.0 + LOST)
    Head().look(0.0)


def test_what_a_silent_head_cannot_explain_is_asked_again(engine, fake, tmp_path, monkeypatch):
    handle = engine.submit(order(tmp_path))
    actor = only(fake)
    actor.begin()
    assert engine.poll(handle) is None
    engine._head = Head(looked=float("inf"), answered=float("inf"), trouble=OSError("refused"))
    monkeypatch.setattr(fake, "nodes", lambda: pytest.fail("it would block"))
    actor.say("wait", RayError("gone"))
    assert engine.poll(handle) is None
    monkeypatch.undo()
    engine._head.trouble = None
    wait_for(lambda: engine.poll(handle) is not None)


def test_processes_on_all_chips_of_all_hosts_of_a_slice_are_let_through(fake, tmp_path):
    whole = order(tmp_path, devices=8, processes=2, platform="tpu")
    RayEngine(RayConfig(), tmp_path, ray=fake).check([whole], [], print)


TWO = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}


@pytest.fixture
def two_slices(tmp_path, fake, monkeypatch) -> RayEngine:
    """Of two hosts each, and an engine that was asked for runs over two processes."""
    monkeypatch.setattr(ray, "probe", lambda *_: None)
    fake.slices, fake.living = dict(TWO), {*TWO}
    engine = RayEngine(RayConfig("head:1"), tmp_path, ray=fake)
    engine.check([whole_slice(tmp_path)], [], print)
    return engine


def whole_slice(folder: Path, name: str = "xs/seed0") -> Order:
    return order(folder, name, devices=8, processes=2, platform="tpu")


def given(fake: FakeRay) -> dict[str, list[str]]:
    """The slices that groups are asked for, a bundle each, by order; of those that ask for one."""
    asked = {name.partition("#")[0]: made[3:] for name, made in fake.groups.items()}
    return {name: [each[LABEL] for each in where[0]] for name, where in asked.items() if where}


def begin(fake: FakeRay, name: str, *nodes: str) -> list[Actor]:
    actors = [fake.actors[each] for each in sorted(fake.actors) if each.startswith(f"{name}#")]
    for actor, node in zip(actors, nodes, strict=True):
        actor.begin(node=node)
    return actors


def test_processes_of_a_run_are_on_one_slice_and_a_slice_has_one_run(two_slices, fake, tmp_path):
    handles = [two_slices.submit(whole_slice(tmp_path, name)) for name in ("r0", "r1", "r2")]
    assert given(fake) == {"r0": ["a", "a"], "r1": ["b", "b"]}
    assert two_slices.waiting(handles[2])
    two_slices.submit(order(tmp_path, "small"))
    assert any(name.startswith("small#") for name in fake.actors), "it is let by"
    for actor in begin(fake, "r1", "n3", "n4"):
        actor.say("wait", 0)
    assert two_slices.poll(handles[1]) == Exit(0, "the worker ended with status 0")
    two_slices.poll(handles[2])
    assert given(fake)["r2"] == ["b", "b"]


@pytest.mark.parametrize("loses", ["a host", "its name"])
def test_a_slice_that_is_not_whole_gets_no_run(two_slices, fake, tmp_path, loses):
    if loses == "a host":
        fake.living = {"n1", "n3", "n4"}
    else:
        fake.slices = {"n3": "b", "n4": "b"}
    for name in ("r0", "r1"):
        two_slices.submit(whole_slice(tmp_path, name))
    assert given(fake) == {"r0": ["b", "b"]}


def test_a_driver_that_comes_back_knows_which_slice_is_taken(two_slices, fake, tmp_path):
    two_slices.submit(whole_slice(tmp_path, "r0"))
    begin(fake, "r0", "n1", "n2")
    again = RayEngine(RayConfig("head:1"), tmp_path, ray=fake)
    again.check([whole_slice(tmp_path)], [], print)
    again.submit(whole_slice(tmp_path, "r1"))
    assert given(fake) == {"r0": ["a", "a"], "r1": ["b", "b"]}


@pytest.mark.parametrize(
    ("slices", "processes", "said"),
    [
        (TWO, 4, "this Ray has 4, 4 and 4, 4, each a slice of its own"),
        ({"n1": "a", "n2": "b"}, 2, "this Ray has 4 and 4, each a slice of its own"),
        ({"n1": "a"}, 2, "this Ray has 4 and 4, each a slice of its own"),
    ],
)
def test_a_run_over_two_slices_is_refused(fake, tmp_path, slices, processes, said):
    fake.slices, fake.living = slices, {"n1", "n2", *slices}
    spread = order(tmp_path, devices=4 * processes, processes=processes, platform="tpu")
    with pytest.raises(UserError, match=said):
        RayEngine(RayConfig(), tmp_path, ray=fake).check([spread], [], print)


def test_a_dead_node_holds_nobody(fake, tmp_path):
    fake.living = set()
    with pytest.raises(UserError, match="the most that one has is 0"):
        RayEngine(RayConfig(), tmp_path, ray=fake).check([order(tmp_path)], [], print)


def test_without_the_package_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = make_engine(compose(["engine=ray"]).engine, tmp_path)
    with pytest.raises(UserError, match=r"pip install 'ab-harness\[ray\]'"):
        engine.check([order(tmp_path)], [], print)


# Inside Ray


def task(here: Path, *argv: str, folder: str = "") -> Task:
    return Task(argv, {"PYTHONPATH": f"{ROOT}:{here}"}, folder or str(here), str(here / "log"), linger=1e6)


@pytest.fixture
def in_ray(monkeypatch) -> None:
    monkeypatch.setattr("harness.fleet.engines.ray_keeper._node", lambda: "n1")
    monkeypatch.setattr("harness.fleet.engines.ray_keeper._address", lambda: "10.1.2.3")


def test_a_keeper_says_how_its_process_ended_or_why_it_did_not_begin(tmp_path, in_ray):
    keeper = Keeper("k", task(tmp_path, "no_such_module"))
    assert (keeper.began()["pid"] > 0, keeper.wait()) == (True, 1)
    assert "No module named no_such_module" in (tmp_path / "log").read_text()
    keeper = Keeper("k", task(tmp_path, "json.tool", folder="/no/such/folder"))
    assert "/no/such/folder" in keeper.began()["failure"]
    assert keeper.wait() is None


def test_a_node_that_does_not_see_the_folder_says_so_and_makes_none(tmp_path, in_ray):
    elsewhere = dataclasses.replace(task(tmp_path, "json.tool"), log=str(tmp_path / "runs" / "probe.log"))
    assert "runs is not there: choose one that every node sees" in Keeper("k", elsewhere).began()["failure"]
    assert not (tmp_path / "runs").exists()


def test_a_keeper_says_where_it_is(tmp_path, in_ray):
    (tmp_path / "says.py").write_text("import os, pathlib; pathlib.Path('said').write_text(os.environ['A'])")
    made = task(tmp_path, "says")
    assert Keeper("k", dataclasses.replace(made, env={**made.env, "A": f"[{HERE}]"})).wait() == 0
    assert (tmp_path / "said").read_text() == "[10.1.2.3]"


def test_a_process_ends_with_its_keeper(tmp_path):
    (tmp_path / "sleeps.py").write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    made = task(tmp_path, "harness.fleet.engines.kept", "sleeps", "pid")
    code = (
        f"from harness.fleet.engines.ray_keeper import Keeper, Task; Keeper('k', {made!r}); "
        "import time; time.sleep(600)"
    )
    keeper = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = Writer.of(int((tmp_path / "pid").read_text()))
    assert worker.alive()
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait()
    wait_for(lambda: not worker.alive())
