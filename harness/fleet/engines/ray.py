"""Workers in a cluster of Ray: each a process that a detached actor keeps, in a placement group of its own.

Actors are named in a namespace of the sweep, so that a driver that comes back finds them.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.config.errors import UserError
from harness.config.identity import digest
from harness.config.schema import RayConfig
from harness.fleet.engines import Exit, Order, environment, runs_of
from harness.fleet.engines import ray_keeper as keeper
from harness.fleet.engines.local import in_words
from harness.fleet.engines.probe import probe
from harness.fleet.engines.ray_cluster import a_little, connect, fitting, library, resource, taken
from harness.records.status import Writer

FRESH = 0.1
"""Seconds for which one question to Ray serves every worker."""
AHEAD = 64
"""Workers that may wait inside Ray at a time; further ones wait here, where waiting costs nothing."""
LINGER = 60.0
"""Seconds for which a worker's end can be asked for when its driver is gone; then its place is given back."""
FOUND = 10.0
"""Seconds in which actors of a former driver answer, if they have a place."""
CALLS = 16
"""At a time to one actor: each driver that ever watched it waits in one."""
KEPT = "harness.fleet.engines.kept"


@dataclass(eq=False)
class Kept:
    """A worker. `actor` from when Ray was asked for it, `host` and `pid` from when it has a place."""

    name: str
    task: keeper.Task | None = None
    takes: Mapping[str, float] = field(default_factory=dict)
    """By resource, how much."""
    actor: Any = None
    group: Any = None
    host: str = ""
    pid: int = 0
    node: str = ""
    exit: Exit | None = None


class RayEngine:
    """Never waits for a worker: answers are asked for all at once, and those that are there are taken."""

    def __init__(
        self, config: RayConfig, logs: Path, module: str = "harness.worker", ray: Any = None
    ) -> None:
        self._config, self._logs, self._module = config, logs.absolute(), module
        self._ray, self._connected = ray, False
        self._keeper: Any = None
        self._answers: dict[Any, tuple[Kept, Callable[[Kept, Any], None]]] = {}
        """By reference, whom it is about and what takes it in."""
        self._unplaced: set[str] = set()
        self._held: deque[Kept] = deque()
        self._found: dict[str, Kept] = {}
        self._asked = float("-inf")

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        self._ray = self._ray or library()
        self._logs.mkdir(parents=True, exist_ok=True)
        connect(self._ray, self._config, f"ab-harness-{digest(str(self._logs))[:12]}")
        self._connected = True
        self._ray.cloudpickle.register_pickle_by_value(keeper)
        self._keeper = self._ray.remote(keeper.Keeper)
        try:
            fitting(self._config, orders, self._ray.nodes())
            if self._config.address is not None:
                self._found = self._left_behind()
                probe(self, self._probe(orders), self._logs, needs, note)
        except BaseException:
            self.close()
            raise

    def submit(self, order: Order) -> Kept:
        left = self._found.pop(order.name, None)
        if left is not None:
            return left
        takes = {resource(self._config, order): order.devices}
        return self._hand_in(order, [KEPT, self._module, *runs_of(order)], takes)

    def adopt(self, writer: Writer, order: Order) -> Kept:
        for name, left in self._found.items():
            if (left.host, left.pid) == (writer.host, writer.pid):
                return self._found.pop(name)
        if writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside this Ray: continue there, or wait"
            )
        words = f"process {writer.pid} on {writer.host} held it, and no actor of this sweep has it now"
        return Kept(order.name, exit=Exit(None, words))

    def poll(self, handle: Kept) -> Exit | None:
        self._listen()
        return handle.exit

    def waiting(self, handle: Kept) -> str:
        return "" if handle.pid else "waits for its place in the cluster"

    def cancel(self, handle: Kept, *, hard: bool) -> None:
        if handle.exit is not None:
            return
        if not handle.pid:
            self._end(handle, Exit(None, "it had not begun"))
        else:
            handle.actor.tell.remote(int(signal.SIGKILL if hard else signal.SIGTERM))

    def close(self) -> None:
        """A Ray that was started here ends with all that is in it; what is in another one stays."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    # Placing

    def _probe(self, orders: Sequence[Order]) -> Callable[[Order, Sequence[str]], Kept]:
        """Beside whatever is at work on a node that workers may be given."""
        return partial(self._hand_in, takes=a_little(fitting(self._config, orders, self._ray.nodes())))

    def _hand_in(self, order: Order, argv: Sequence[str], takes: Mapping[str, float]) -> Kept:
        handle = Kept(f"{order.name}#{secrets.token_hex(4)}", _task(order, argv), takes)
        self._held.append(handle)
        self._place_some()
        return handle

    def _place_some(self) -> None:
        while self._held and len(self._unplaced) < AHEAD:
            handle = self._held.popleft()
            if handle.exit is None:
                self._place(handle)

    def _place(self, handle: Kept) -> None:
        """One bundle, since one process holds all devices of a worker: Ray keeps a bundle on one node."""
        util = self._ray.util
        handle.group = util.placement_group([dict(handle.takes)], "STRICT_PACK", handle.name, "detached")
        options = taken(handle.takes) | {
            "name": handle.name,
            "lifetime": "detached",
            "max_concurrency": CALLS,
            "scheduling_strategy": util.scheduling_strategies.PlacementGroupSchedulingStrategy(handle.group),
        }
        handle.actor = self._keeper.options(**options).remote(handle.name, handle.task)
        self._watch(handle)

    def _left_behind(self) -> dict[str, Kept]:
        """By the order's name, the workers of a former driver that have not ended; others are put away."""
        found = [Kept(name) for name in self._ray.util.list_named_actors()]
        for handle in found:
            handle.actor = self._ray.get_actor(handle.name)
            handle.group = self._ray.util.get_placement_group(handle.name)
            self._watch(handle)
        deadline = time.monotonic() + FOUND
        while any(each.name in self._unplaced for each in found) and time.monotonic() < deadline:
            time.sleep(FRESH)
            self._listen()
        for handle in found:
            if not handle.pid and handle.exit is None:
                self._end(handle, Exit(None, "it had not begun"))
        return {each.name.rpartition("#")[0]: each for each in found if each.exit is None}

    # Watching

    def _watch(self, handle: Kept) -> None:
        self._unplaced.add(handle.name)
        self._answers[handle.actor.began.remote()] = (handle, self._begun)
        self._answers[handle.actor.wait.remote()] = (handle, self._ended)

    def _listen(self) -> None:
        """One question for all, of which those are taken in that have an answer."""
        now = time.monotonic()
        if now - self._asked < FRESH:
            return
        self._asked = now
        if references := [*self._answers]:
            for each in self._ray.wait(references, num_returns=len(references), timeout=0)[0]:
                self._heard(each)
        self._place_some()

    def _heard(self, reference: Any) -> None:
        handle, take_in = self._answers.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError:  # of a moment: the network
            self._watch(handle)
        except self._ray.exceptions.RayError as error:
            self._end(handle, self._how_lost(handle, error))
        else:
            take_in(handle, answer)

    def _begun(self, handle: Kept, answer: dict[str, Any]) -> None:
        self._unplaced.discard(handle.name)
        handle.host, handle.pid, handle.node = answer["host"], answer["pid"], answer["node"]
        if answer["failure"]:
            self._end(handle, Exit(None, f"the worker cannot be started: {answer['failure']}"))

    def _ended(self, handle: Kept, code: int | None) -> None:
        if code is not None:
            self._end(handle, Exit(code, in_words(code)))

    def _how_lost(self, handle: Kept, error: Exception) -> Exit:
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if handle.node and handle.node not in alive:
            return Exit(None, f"its node {handle.host} was lost", taken_away=True)
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Exit(None, f"its actor was lost: {said}")

    def _end(self, handle: Kept, end: Exit) -> None:
        """Give its place back. Ray would find a group of a lost node a new one."""
        if handle.exit is not None:
            return
        handle.exit = end
        self._unplaced.discard(handle.name)
        if handle.actor is not None:
            self._ray.kill(handle.actor)
            self._ray.util.remove_placement_group(handle.group)


def _task(order: Order, argv: Sequence[str]) -> keeper.Task:
    return keeper.Task((*argv,), environment(order), os.getcwd(), str(order.log.absolute()), LINGER)


__all__ = ["Kept", "RayEngine"]
