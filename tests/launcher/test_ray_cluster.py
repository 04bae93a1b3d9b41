"""What a made-up Ray can hold, its slices of TPUs, and what is refused before anything starts."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path

import pytest

from harness.config.compose import compose
from harness.config.schema.engine import RayConfig
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit, WorkerSpec
from harness.launcher.engines.factory import make_engine
from harness.launcher.engines.ray import ray_engine as ray
from harness.launcher.engines.ray.ray_cluster import CHECK_INTERVAL_SECONDS, LOST_AFTER_SECONDS, HeadMonitor
from harness.launcher.engines.ray.ray_engine import RayEngine
from harness.launcher.engines.ray.slice_shape import SLICE_LABEL
from tests.launcher.fake_ray import Actor, FakeRay, RayError, free_port, only, order
from tests.launcher.support import wait_for


@pytest.mark.parametrize(
    ("address", "given", "said"),
    [
        ("nonsense", {}, "give host:port"),
        ("127.0.0.1:PORT", {}, "nobody answers"),
        (None, {"devices": 5}, "needs 5 CPU on one node, but the largest node has 4"),
        (None, {"devices": 9, "processes": 3}, "3 places of 3 CPU, each on one node, but .* have 2"),
        (
            None,
            {"devices": 4, "processes": 2, "platform": "tpu"},
            r"this Ray has 4, 4\. Use one process per host",
        ),
        (None, {"platform": "cuda"}, "needs 2 GPU on one node, but the largest node has 0"),
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
    monkeypatch.setattr(ray, "run_preflight", lambda *_: None)
    fake = FakeRay()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_all, args=(server, answer), daemon=True).start()
        config = RayConfig(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match="the server there is not a Ray head"):
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
        head = HeadMonitor(f"127.0.0.1:{server.getsockname()[1]}")
        head.check(100.0)
    head.check(100.0 + 2 * CHECK_INTERVAL_SECONDS)
    assert not head.is_reachable(100.0 + 2 * CHECK_INTERVAL_SECONDS)
    with pytest.raises(UserError, match=r"the head was lost \(.*refused\).*Give the same command"):
        head.check(100.0 + LOST_AFTER_SECONDS)
    HeadMonitor().check(0.0)


def test_what_a_silent_head_cannot_explain_is_asked_again(engine, fake, tmp_path, monkeypatch):
    handle = engine.submit(order(tmp_path))
    actor = only(fake)
    actor.begin()
    assert engine.poll(handle) is None
    engine._head = HeadMonitor(checked_at=float("inf"), answered_at=float("inf"), error=OSError("refused"))
    monkeypatch.setattr(fake, "nodes", lambda: pytest.fail("it would block"))
    actor.say("wait", RayError("gone"))
    assert engine.poll(handle) is None
    monkeypatch.undo()
    engine._head.error = None
    wait_for(lambda: engine.poll(handle) is not None)


def test_processes_on_all_chips_of_all_hosts_of_a_slice_are_let_through(fake, tmp_path):
    whole = order(tmp_path, devices=8, processes=2, platform="tpu")
    RayEngine(RayConfig(), tmp_path, ray=fake).check([whole], [], print)


TWO = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}


@pytest.fixture
def two_slices(tmp_path, fake, monkeypatch) -> RayEngine:
    """Of two hosts each, and an engine that was asked for runs over two processes."""
    monkeypatch.setattr(ray, "run_preflight", lambda *_: None)
    fake.slices, fake.living = dict(TWO), {*TWO}
    engine = RayEngine(RayConfig("head:1"), tmp_path, ray=fake)
    engine.check([whole_slice(tmp_path)], [], print)
    return engine


def whole_slice(folder: Path, name: str = "xs/seed0") -> WorkerSpec:
    return order(folder, name, devices=8, processes=2, platform="tpu")


def given(fake: FakeRay) -> dict[str, list[str]]:
    """The slices that groups are asked for, a bundle each, by order; of those that ask for one."""
    asked = {name.partition("#")[0]: made[3:] for name, made in fake.groups.items()}
    return {name: [each[SLICE_LABEL] for each in where[0]] for name, where in asked.items() if where}


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
    with pytest.raises(UserError, match="the largest node has 0"):
        RayEngine(RayConfig(), tmp_path, ray=fake).check([order(tmp_path)], [], print)


def test_without_the_package_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = make_engine(compose(["engine=ray"]).engine, tmp_path)
    with pytest.raises(UserError, match=r"pip install 'ab-harness\[ray\]'"):
        engine.check([order(tmp_path)], [], print)
