"""Workers of a sweep in Ray: each has a placement group with one actor per process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.ray import process_actor
from harness.launcher.engines.ray.slice_shape import SLICE_LABEL, SliceShape
from harness.launcher.engines.worker_processes import ProcessGroupHandle

MAX_CONCURRENT_CALLS = 16
"""Maximum number of concurrent calls to an actor; each driver that has watched it blocks in some."""


@dataclass(eq=False)
class ActorProcess:
    """A process. `actor` is set once it was requested from Ray, `host` and `pid` once it has started."""

    worker: RayWorker
    task: process_actor.ProcessTask | None = None
    actor: Any = None
    host: str = ""
    pid: int = 0
    node: str = ""
    exit: Exit | None = None


@dataclass(eq=False)
class RayWorker:
    """The processes of one worker, in the bundles of one placement group."""

    name: str
    resources: Mapping[str, float] = field(default_factory=dict)
    """Amount of each Ray resource that a process uses."""
    shape: SliceShape | None = None
    """Shape of the TPU slice that it needs for itself; None if it needs none."""
    slice: str = ""
    """Name of the slice that it was assigned; empty without one."""
    requested_at: float = float("inf")
    """Monotonic time in seconds at which it was requested from Ray."""
    group: Any = None
    process_group: ProcessGroupHandle[ActorProcess] = field(default_factory=lambda: ProcessGroupHandle([]))
    exit: Exit | None = None

    @property
    def leader(self) -> ActorProcess:
        """Process 0."""
        return self.process_group.members[0]

    @property
    def has_started(self) -> bool:
        """True once every process has started or ended."""
        return all(process.pid or process.exit for process in self.process_group.members)


@dataclass(frozen=True, order=True)
class ActorName:
    """Name of the actor of process `index` of `count` in a placement group."""

    group: str
    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.group}#{self.index}of{self.count}"

    @staticmethod
    def parse(text: str) -> ActorName:
        """Read what `str` of a name gives. Raises ValueError for other text."""
        group, _, position = text.rpartition("#")
        index, _, count = position.partition("of")
        return ActorName(group, int(index), int(count))


def request_placement(ray: Any, actor_class: Any, worker: RayWorker) -> None:
    """Request one bundle per process, which Ray keeps on one node, and an actor in each. `actor_class`:
    ProcessActor as a Ray remote class."""
    util, count = ray.util, len(worker.process_group.members)
    strategy = "PACK" if count > 1 else "STRICT_PACK"
    bundles = [dict(worker.resources) for _ in range(count)]
    labels = {"bundle_label_selector": [{SLICE_LABEL: worker.slice}] * count} if worker.slice else {}
    worker.group = util.placement_group(bundles, strategy, worker.name, "detached", **labels)
    strategy_class = util.scheduling_strategies.PlacementGroupSchedulingStrategy
    for index, process in enumerate(worker.process_group.members):
        options = {
            "num_cpus": worker.resources.get("CPU", 0),
            "num_gpus": worker.resources.get("GPU", 0),
            "resources": {key: value for key, value in worker.resources.items() if key not in ("CPU", "GPU")},
            "name": str(ActorName(worker.name, index, count)),
            "lifetime": "detached",
            "max_concurrency": MAX_CONCURRENT_CALLS,
            "scheduling_strategy": strategy_class(worker.group, index),
        }
        process.actor = actor_class.options(**options).remote(worker.name, process.task)


def release_placement(ray: Any, worker: RayWorker) -> None:
    """Kill the actors and remove the placement group: Ray would place the group of a lost node again."""
    for process in worker.process_group.members:
        if process.actor is not None:
            ray.kill(process.actor)
    if worker.group is not None:
        ray.util.remove_placement_group(worker.group)


def complete_workers(ray: Any) -> list[RayWorker]:
    """Return the workers of this sweep that have all their actors. Groups without are released: their driver
    or node was lost."""
    actors: dict[str, list[ActorName]] = {}
    for actor in sorted(map(ActorName.parse, ray.util.list_named_actors())):
        actors.setdefault(actor.group, []).append(actor)
    groups = ray.util.placement_group_table().values()
    workers = []
    for name in sorted({group["name"] for group in groups if group["state"] != "REMOVED"}):
        worker = _find_worker(ray, name, actors.get(name, []))
        if worker.process_group.members:
            workers.append(worker)
        else:
            release_placement(ray, worker)
    return workers


def _find_worker(ray: Any, name: str, names: list[ActorName]) -> RayWorker:
    """Return a worker: without members if an actor is missing, without a group if another sweep owns it."""
    worker = RayWorker(name)
    with contextlib.suppress(ValueError):
        worker.group = ray.util.get_placement_group(name)
        members = [ActorProcess(worker, actor=ray.get_actor(str(actor))) for actor in names]
        worker.process_group.members = members if members and len(members) == names[0].count else []
    return worker
