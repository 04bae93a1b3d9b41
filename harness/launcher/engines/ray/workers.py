"""The workers of a sweep as Ray holds them: a placement group each, with an actor a process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.grouped_processes import Gang
from harness.launcher.engines.ray import process_actor as keeper
from harness.launcher.engines.ray.ray_cluster import taken
from harness.launcher.engines.ray.slice_shape import LABEL, Shape

CALLS = 16
"""At a time to one actor: each driver that ever watched it waits in one."""


@dataclass(eq=False)
class Kept:
    """A process. `actor` from when Ray was asked for it, `host` and `pid` from when it has a place."""

    worker: Worker
    task: keeper.Task | None = None
    actor: Any = None
    host: str = ""
    pid: int = 0
    node: str = ""
    exit: Exit | None = None


@dataclass(eq=False)
class Worker:
    """The processes that were asked for together, in the bundles of one group."""

    name: str
    takes: Mapping[str, float] = field(default_factory=dict)
    """By resource, how much each process does."""
    shape: Shape | None = None
    """Of the slice of TPUs that it is to be alone on."""
    slice: str = ""
    """The one that it was given, where it has a name."""
    asked: float = float("inf")
    """When Ray was asked for it; seconds by the monotonic clock."""
    group: Any = None
    gang: Gang[Kept] = field(default_factory=lambda: Gang([]))
    exit: Exit | None = None

    @property
    def leader(self) -> Kept:
        return self.gang.members[0]

    @property
    def begun(self) -> bool:
        return all(each.pid or each.exit for each in self.gang.members)


@dataclass(frozen=True, order=True)
class Name:
    """Of an actor."""

    group: str
    place: int
    of: int

    def __str__(self) -> str:
        return f"{self.group}#{self.place}of{self.of}"

    @staticmethod
    def read(text: str) -> Name:
        group, _, place = text.rpartition("#")
        index, _, count = place.partition("of")
        return Name(group, int(index), int(count))


def ask_for(ray: Any, keep: Any, worker: Worker) -> None:
    """A bundle a process, since it holds its devices alone: Ray keeps a bundle on one node. `keep`: the
    keeper's class, in Ray."""
    util, count = ray.util, len(worker.gang.members)
    strategy = "PACK" if count > 1 else "STRICT_PACK"
    bundles = [dict(worker.takes) for _ in range(count)]
    there = {"bundle_label_selector": [{LABEL: worker.slice}] * count} if worker.slice else {}
    worker.group = util.placement_group(bundles, strategy, worker.name, "detached", **there)
    place = util.scheduling_strategies.PlacementGroupSchedulingStrategy
    for index, kept in enumerate(worker.gang.members):
        options = taken(worker.takes) | {
            "name": str(Name(worker.name, index, count)),
            "lifetime": "detached",
            "max_concurrency": CALLS,
            "scheduling_strategy": place(worker.group, index),
        }
        kept.actor = keep.options(**options).remote(worker.name, kept.task)


def give_back(ray: Any, worker: Worker) -> None:
    """Ray would find a group of a lost node a new one. It takes actors along that are not known here."""
    for kept in worker.gang.members:
        if kept.actor is not None:
            ray.kill(kept.actor)
    if worker.group is not None:
        ray.util.remove_placement_group(worker.group)


def whole(ray: Any) -> list[Worker]:
    """Of this sweep, those of which every actor is there. A group that lacks one is of a driver or a node
    that was lost, and is given back."""
    actors: dict[str, list[Name]] = {}
    for each in sorted(map(Name.read, ray.util.list_named_actors())):
        actors.setdefault(each.group, []).append(each)
    listed = [each for each in ray.util.placement_group_table().values() if each["state"] != "REMOVED"]
    found = []
    for name in sorted({each["name"] for each in listed}):
        worker = _again(ray, name, actors.get(name, []))
        if worker.gang.members:
            found.append(worker)
        else:
            give_back(ray, worker)
    return found


def _again(ray: Any, name: str, actors: list[Name]) -> Worker:
    """Without members where it is not whole, without a group where it is another sweep's."""
    worker = Worker(name)
    with contextlib.suppress(ValueError):
        worker.group = ray.util.get_placement_group(name)
        members = [Kept(worker, actor=ray.get_actor(str(each))) for each in actors]
        worker.gang.members = members if members and len(members) == actors[0].of else []
    return worker
