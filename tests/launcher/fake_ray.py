"""As much of the package `ray` as the engine uses. A test says what an actor answers, and when."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.ray.slice_shape import SLICE_LABEL


class RayError(Exception):
    pass


class ActorUnavailableError(RayError):
    pass


class Actor:
    """`say("began", answer)` answers every call of that method so far, and the calls to come."""

    def __init__(self, options: dict[str, Any], given: tuple) -> None:
        self.options, self.given = options, given
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, tuple]] = []

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Call:
            self.calls.append((method, arguments))
            return Call(self, method)

        return SimpleNamespace(remote=remote)

    def say(self, method: str, answer: Any) -> None:
        self.answers[method] = answer

    def begin(self, pid: int = 7, node: str = "n1", failure: str = "") -> None:
        self.say("began", {"host": "elsewhere", "pid": pid, "node": node, "failure": failure})


class Call:
    def __init__(self, actor: Actor, method: str) -> None:
        self.actor, self.method = actor, method


class FakeRay:
    __version__ = "0"

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.groups: dict[str, Any] = {}
        self.living = {"n1", "n2"}
        self.slices: dict[str, str] = {}
        """Of TPUs, by node; further nodes may be named here."""
        self.initialised: dict[str, Any] = {}
        self.shut = 0
        self.questions = 0
        self.exceptions = SimpleNamespace(RayError=RayError, ActorUnavailableError=ActorUnavailableError)
        self.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda _: None)
        self.util = SimpleNamespace(
            placement_group=self._group,
            remove_placement_group=self._remove,
            get_placement_group=self._group_of,
            placement_group_table=lambda: {
                name: {"name": name, "state": "CREATED"} for name in [*self.groups, "another's"]
            },
            scheduling_strategies=SimpleNamespace(PlacementGroupSchedulingStrategy=lambda *place: place),
            list_named_actors=lambda: [*self.actors],
        )

    def init(self, **options: Any) -> None:
        self.initialised = options

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="head:1")

    def shutdown(self) -> None:
        self.shut += 1

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "Alive": name in self.living,
                "NodeManagerAddress": f"address-{name}",
                "Resources": {"CPU": 4.0, "TPU": 4.0},
                "Labels": {SLICE_LABEL: self.slices[name]} if name in self.slices else {},
            }
            for name in sorted({"n1", "n2", *self.slices})
        ]

    def remote(self, _: type) -> Any:
        def options(**given: Any) -> Any:
            def make(*arguments: Any) -> Actor:
                self.actors[given["name"]] = Actor(given, arguments)
                return self.actors[given["name"]]

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def get_actor(self, name: str) -> Actor:
        return self.actors[name]

    def kill(self, actor: Actor) -> None:
        self.actors = {name: each for name, each in self.actors.items() if each is not actor}

    def wait(self, calls: list[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        assert num_returns == len(calls) > 0
        self.questions += timeout == 0
        return [call for call in calls if call.method in call.actor.answers], []

    def get(self, call: Call) -> Any:
        answer = call.actor.answers[call.method]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _group_of(self, name: str) -> str:
        if name not in self.groups:
            raise ValueError(name)
        return name

    def _remove(self, group: str) -> None:
        """With its actors, as Ray does."""
        self.groups.pop(group)
        self.actors = {name: each for name, each in self.actors.items() if not name.startswith(group)}

    def _group(self, bundles: list, strategy: str, name: str, lifetime: str, **where: Any) -> str:
        self.groups[name] = (bundles, strategy, lifetime, *where.values())
        return name


def order(
    folder: Path, name: str = "xs/seed0", devices: int = 2, platform: str = "cpu", processes: int = 1
) -> WorkerSpec:
    log, env = folder / "log", {"A": "1"}
    return WorkerSpec(
        name, (folder / "run",), env, log, devices=devices, platform=platform, processes=processes
    )


def only(fake: FakeRay):
    (actor,) = fake.actors.values()
    return actor


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]
