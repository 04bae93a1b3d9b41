"""The engine of Ray over a made-up Ray. With a real one: tests/ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from harness.config.process_group import LOOPBACK, from_env
from harness.config.schema.engine import RayConfig
from harness.core.atomic_files import write_checksummed_json
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.ray import ray_engine as ray
from harness.launcher.engines.ray.process_actor import NODE_ADDRESS
from harness.launcher.engines.ray.ray_engine import RayEngine
from harness.launcher.engines.worker_processes import EXIT_GRACE_SECONDS
from harness.records.run.status import ProcessInfo
from tests.launcher.fake_ray import Actor, ActorUnavailableError, FakeRay, RayError, free_port, only, order
from tests.launcher.support import wait_for


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
        assert engine.poll(handle).preempted is taken_away
        assert "\n" not in handle.exit.message
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


def test_processes_meet_on_loopback_only_in_a_ray_of_this_machine(engine, fake, tmp_path):
    for address, host in ((None, LOOPBACK), ("head:1", NODE_ADDRESS)):
        engine._config = RayConfig(address)
        handle = engine.submit(order(tmp_path, devices=4, processes=2))
        hosts = {from_env(actor.given[1].env).host for actor in fake.actors.values()}
        assert hosts == {host}
        engine.cancel(handle, hard=True)


def test_processes_of_a_run_are_actors_in_one_group(engine, fake, tmp_path):
    handle, *actors = several(engine, fake, tmp_path)
    assert [*fake.groups.values()] == [([{"CPU": 2}] * 2, "PACK", "detached")]
    assert [each.options["scheduling_strategy"][1] for each in actors] == [0, 1]
    tasks = [each.given[1] for each in actors]
    made = [from_env(each.env) for each in tasks]
    assert [(each.index, each.count, each.host) for each in made] == [
        (0, 2, LOOPBACK),
        (1, 2, LOOPBACK),
    ]
    assert made[0].launch_id == made[1].launch_id
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
    assert engine.poll(handle) == Exit(None, "process 1 of 2: its node elsewhere was lost", preempted=True)
    assert (fake.actors, fake.groups) == ({}, {})


def test_one_that_outlives_the_others_is_told_once(engine, fake, tmp_path):
    handle, first, second = several(engine, fake, tmp_path)
    second.say("wait", -9)
    engine.poll(handle)
    handle.process_group.clock = lambda: time.monotonic() + EXIT_GRACE_SECONDS + 1
    for _ in range(3):
        assert engine.poll(handle) is None
    assert [arguments for method, arguments in first.calls if method == "tell"] == [(9,)]


def test_a_driver_that_comes_back_finds_all_processes_of_a_run_or_none(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "run_preflight", lambda *_: None)
    config = RayConfig("head:1")
    engine = RayEngine(config, tmp_path, ray=fake)
    engine.check([order(tmp_path)], [], print)
    several(engine, fake, tmp_path)
    again = RayEngine(config, tmp_path, ray=fake)
    again.check([order(tmp_path)], [], print)
    assert again.adopt(ProcessInfo("elsewhere", 1, ""), order(tmp_path)).exit is None
    del fake.actors[max(fake.actors)]
    fake.groups["a group whose actor went with its node"] = None
    last = RayEngine(config, tmp_path, ray=fake)
    last.check([order(tmp_path)], [], print)
    assert last.adopt(ProcessInfo("elsewhere", 1, ""), order(tmp_path)).exit
    assert (fake.actors, fake.groups) == ({}, {})


def test_ray_is_asked_once_for_all_and_holds_few_that_wait(engine, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "MAX_WAITING_IN_RAY", 3)
    handles = [engine.submit(order(tmp_path, f"b{number}")) for number in range(10)]
    assert len(fake.actors) == 3
    assert [engine.waiting(each).split()[0] for each in handles] == ["is"] * 3 + ["waits"] * 7
    monkeypatch.setattr(ray, "START_SECONDS", 0.0)
    assert [engine.waiting(each).split()[0] for each in handles] == ["waits"] * 10
    monkeypatch.setattr(ray, "REFRESH_SECONDS", 60.0)
    engine._last_asked, before = float("-inf"), fake.questions
    for handle in handles:
        engine.poll(handle)
    assert fake.questions == before + 1
    monkeypatch.setattr(ray, "REFRESH_SECONDS", 0.0)
    engine.cancel(handles[9], hard=False)
    for _ in range(9):
        for actor in [*fake.actors.values()]:
            actor.begin()
            actor.say("wait", 0)
        engine.poll(handles[0])
    assert [handle.exit.code for handle in handles] == [0] * 9 + [None], "a cancelled one is not placed"
    assert (fake.actors, fake.groups) == ({}, {})


def test_a_driver_that_comes_back_finds_what_works_and_what_waits(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "run_preflight", lambda *_: None)
    monkeypatch.setattr(ray, "ANSWER_SECONDS", 0.05)
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
    assert engines[1].adopt(ProcessInfo("elsewhere", 12, ""), order(tmp_path)).exit.code is None
    found = engines[1].adopt(ProcessInfo("elsewhere", 11, ""), order(tmp_path, "works"))
    assert engines[1].poll(found) is None
    with pytest.raises(UserError, match="outside this Ray"):
        engines[1].adopt(ProcessInfo.current(), order(tmp_path))


def test_workers_are_told_to_stop_without_their_driver(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "run_preflight", lambda *_: None)
    monkeypatch.setattr(ray, "ANSWER_SECONDS", 0.05)
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
    write_checksummed_json(tmp_path / "ray.json", {"address": f"127.0.0.1:{free_port()}"})
    with pytest.raises(
        UserError, match=r"cannot ask the Ray at .* \(.*refused\)\. If that cluster has ended, its"
    ):
        ray.stop_workers(tmp_path, FakeRay())


def test_a_sweep_finds_its_own_actors_and_no_others(fake, tmp_path):
    spaces = []
    for name in ("a", "b", "a"):
        RayEngine(RayConfig(), tmp_path / name, ray=fake).check([order(tmp_path)], [], print)
        spaces.append(fake.initialised["namespace"])
    assert spaces[0] == spaces[2] != spaces[1]


def test_actors_import_nothing_from_the_current_folder(fake, tmp_path, monkeypatch):
    """Ray lets them search the folder of `init` first."""
    folders = []
    monkeypatch.setattr(fake, "init", lambda **_: folders.append(os.getcwd()))
    monkeypatch.chdir(tmp_path)
    RayEngine(RayConfig(), tmp_path, ray=fake).check([order(tmp_path)], [], print)
    assert (folders, os.getcwd()) == (["/"], str(tmp_path))


def test_ray_does_not_take_the_driver_s_signals(engine, fake, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(fake, "init", lambda **_: signal.signal(signal.SIGTERM, lambda *_: None))
    RayEngine(RayConfig(), tmp_path, ray=fake).check([order(tmp_path)], [], print)
    assert signal.getsignal(signal.SIGTERM) is before
