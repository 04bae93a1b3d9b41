"""Workers in a cluster of Ray: each in a placement group of its own, where a detached actor keeps each of its
processes.

Actors are named in a namespace of the sweep, so that a driver that comes back finds them.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.config.schema.engine import RayConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import digest
from harness.launcher.engines.engine_api import Exit, Order, environment, runs_of
from harness.launcher.engines.grouped_processes import Gang, shares
from harness.launcher.engines.local.local_engine import in_words
from harness.launcher.engines.preflight import probe
from harness.launcher.engines.ray import process_actor as keeper
from harness.launcher.engines.ray import slice_shape
from harness.launcher.engines.ray.ray_cluster import Head, a_little, connect, fitting, library, resource
from harness.launcher.engines.ray.slice_shape import Shape, slice_of
from harness.launcher.engines.ray.workers import Kept, Worker, ask_for, give_back, whole
from harness.records.run.status import Writer

FRESH = 0.1
"""Seconds for which one question to Ray serves every worker."""
AHEAD = 64
"""Workers that may wait inside Ray at a time; further ones wait here, where waiting costs nothing."""
LINGER = 60.0
"""Seconds for which a worker's end can be asked for when its driver is gone; then its place is given back."""
SOON = 10.0
"""Seconds within which a worker begins that has a place."""
FOUND = 10.0
"""Seconds in which actors of a former driver answer, if they have a place."""
KEPT = "harness.launcher.engines.ray.parent_death"
WHERE = "ray.json"
"""Beside the logs, while workers are in a cluster: the address of its head."""


def stop_workers(logs: Path, ray: Any = None) -> int:
    """Tell the workers of a sweep to save and leave, without its driver. Returns how many there were."""
    record = atomic_files.read_sealed(logs / WHERE)
    if record is None:
        return 0
    try:
        return RayEngine(RayConfig(record["address"]), logs, ray=ray).stop()
    except UserError as error:
        raise UserError(
            f"{logs.parent}: whether workers train it in the Ray at {record['address']} cannot be asked now "
            f"({error.__cause__ or error}); if that cluster has ended, so have they"
        ) from error


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
        self._held: deque[Worker] = deque()
        self._found: dict[str, Worker] = {}
        self._asked = float("-inf")
        self._head = Head()

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._join()
        try:
            fitting(self._config, orders, self._ray.nodes())
            if self._config.address is not None:
                self._found = self._left_behind()
                probe(self, self._probe(orders), self._logs, needs, note)
                self._head = Head(self._ray.get_runtime_context().gcs_address)
                atomic_files.write_sealed(self._logs / WHERE, {"address": self._head.address})
        except BaseException:
            self.close()
            raise

    def submit(self, order: Order) -> Worker:
        left = self._found.pop(order.name, None)
        if left is not None:
            return left
        name, share = resource(self._config, order), order.devices // order.processes
        whole = order.platform == "tpu" and order.processes > 1
        shape = Shape(name, share, order.processes) if whole else None
        return self._hand_in(order, [KEPT, self._module, *runs_of(order)], {name: share}, shape)

    def adopt(self, writer: Writer, order: Order) -> Worker:
        for name, left in self._found.items():
            if (left.leader.host, left.leader.pid) == (writer.host, writer.pid):
                return self._found.pop(name)
        if writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside this Ray: continue there, or wait"
            )
        words = f"process {writer.pid} on {writer.host} held it, and no actor of this sweep has it now"
        return Worker(order.name, exit=Exit(None, words))

    def poll(self, handle: Worker) -> Exit | None:
        self._listen()
        self._settle(handle)
        return handle.exit

    def waiting(self, handle: Worker) -> str:
        if handle.begun:
            return ""
        new = 0 <= time.monotonic() - handle.asked < SOON
        return "is started in the cluster" if new else "waits for its place in the cluster"

    def cancel(self, handle: Worker, *, hard: bool) -> None:
        if handle.exit is not None:
            return
        if not handle.begun:
            self._end(handle, Exit(None, "it had not begun"))
        for kept in handle.gang.members if handle.exit is None else ():
            self._tell(kept, signal.SIGKILL if hard else signal.SIGTERM)

    def stop(self) -> int:
        """Tell the workers of a driver that is gone to save and leave. Returns how many there were; what only
        waited is put away."""
        self._join()
        try:
            found = self._left_behind()
            members = [kept for worker in found.values() for kept in worker.gang.members]
            if told := [kept.actor.tell.remote(int(signal.SIGTERM)) for kept in members]:
                self._ray.wait(told, num_returns=len(told), timeout=FOUND)
            else:
                (self._logs / WHERE).unlink()
            return len(found)
        finally:
            self.close()

    def close(self) -> None:
        """A Ray that was started here ends with all that is in it; what is in another one stays."""
        if not self._connected:
            return
        self._connected = False
        if self._head.address and not any(kept.worker.exit is None for kept, _ in self._answers.values()):
            (self._logs / WHERE).unlink(missing_ok=True)
        if self._head.answers(self._asked):  # else it would block
            self._ray.shutdown()

    def _join(self) -> None:
        self._ray = self._ray or library(self._config)
        connect(self._ray, self._config, f"ab-harness-{digest(str(self._logs))[:12]}")
        self._connected = True
        self._ray.cloudpickle.register_pickle_by_value(keeper)
        self._keeper = self._ray.remote(keeper.Keeper)

    # Placing

    def _probe(self, orders: Sequence[Order]) -> Callable[[Order, Sequence[str]], Worker]:
        """Beside whatever is at work on a node that workers may be given."""
        return partial(self._hand_in, takes=a_little(fitting(self._config, orders, self._ray.nodes())))

    def _hand_in(
        self, order: Order, argv: Sequence[str], takes: Mapping[str, float], shape: Shape | None = None
    ) -> Worker:
        worker = Worker(f"{order.name}#{secrets.token_hex(4)}", takes, shape)
        tasks = [_task(each, argv) for each in shares(order, keeper.HERE)]
        worker.gang = Gang([Kept(worker, task) for task in tasks])
        self._held.append(worker)
        self._place_some()
        return worker

    def _place_some(self) -> None:
        """In their order; those that wait for a slice let others by."""
        later: list[Worker] = []
        none_free: set[Shape | None] = set()
        while self._held and len(self._unplaced) < AHEAD and self._head.answers(self._asked):
            worker = self._held.popleft()
            if worker.exit is not None:
                continue
            if worker.shape not in none_free and self._given_slice(worker):
                self._place(worker)
            else:
                none_free.add(worker.shape)
                later.append(worker)
        self._held.extendleft(reversed(later))

    def _given_slice(self, worker: Worker) -> bool:
        """Whether it needs none, or has one to itself: Ray would spread it over two."""
        if worker.shape is None:
            return True
        taken = {kept.worker.slice for kept, _ in self._answers.values() if kept.worker.exit is None} - {""}
        free = [name for name in slice_shape.whole(worker.shape, self._ray.nodes()) if name not in taken]
        worker.slice = next(iter(free), "")
        return bool(free)

    def _place(self, worker: Worker) -> None:
        worker.asked = time.monotonic()
        ask_for(self._ray, self._keeper, worker)
        for kept in worker.gang.members:
            self._watch(kept)

    def _left_behind(self) -> dict[str, Worker]:
        """By the order's name, the workers of a former driver of which every process is at work; others are
        put away."""
        found = whole(self._ray)
        for kept in (kept for worker in found for kept in worker.gang.members):
            self._watch(kept)
        deadline = time.monotonic() + FOUND
        while any(each.name in self._unplaced for each in found) and time.monotonic() < deadline:
            time.sleep(FRESH)
            self._listen()
        for worker in found:
            if not worker.begun or any(kept.exit for kept in worker.gang.members):
                self._end(worker, Exit(None, "it had not begun, or had ended in part"))
        slices = {node["NodeID"]: slice_of(node) for node in self._ray.nodes()} if found else {}
        for worker in found:
            worker.slice = slices.get(worker.leader.node, "")
        return {each.name.rpartition("#")[0]: each for each in found if each.exit is None}

    # Watching

    def _watch(self, kept: Kept) -> None:
        self._unplaced.add(kept.worker.name)
        self._answers[kept.actor.began.remote()] = (kept, self._begun)
        self._answers[kept.actor.wait.remote()] = (kept, self._ended)

    def _listen(self) -> None:
        """One question for all, of which those are taken in that have an answer."""
        now = time.monotonic()
        if now - self._asked < FRESH:
            return
        self._asked = now
        self._head.look(now)
        if references := [*self._answers]:
            for each in self._ray.wait(references, num_returns=len(references), timeout=0)[0]:
                self._heard(each)
        self._place_some()

    def _heard(self, reference: Any) -> None:
        kept, take_in = self._answers.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError:  # of a moment: the network
            self._watch(kept)
        except self._ray.exceptions.RayError as error:
            if self._head.answers(self._asked):
                self._close(kept, self._how_lost(kept, error))
            else:  # and nobody says why now
                self._answers[reference] = (kept, take_in)
        else:
            take_in(kept, answer)

    def _begun(self, kept: Kept, answer: dict[str, Any]) -> None:
        kept.host, kept.pid, kept.node = answer["host"], answer["pid"], answer["node"]
        if kept.worker.begun:
            self._unplaced.discard(kept.worker.name)
        if answer["failure"]:
            self._close(kept, Exit(None, f"the worker cannot be started: {answer['failure']}"))

    def _ended(self, kept: Kept, code: int | None) -> None:
        if code is not None:
            self._close(kept, Exit(code, in_words(code)))

    def _how_lost(self, kept: Kept, error: Exception) -> Exit:
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if kept.node and kept.node not in alive:
            return Exit(None, f"its node {kept.host} was lost", taken_away=True)
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Exit(None, f"its actor was lost: {said}")

    def _close(self, kept: Kept, end: Exit) -> None:
        kept.exit = kept.exit or end
        self._settle(kept.worker)

    def _settle(self, worker: Worker) -> None:
        """Whether all its processes have ended, and how."""
        if worker.exit is None:
            end = worker.gang.poll(lambda kept: kept.exit, lambda kept: self._tell(kept, signal.SIGKILL))
            if end is not None:
                self._end(worker, end)

    def _tell(self, kept: Kept, number: signal.Signals) -> None:
        if kept.exit is None:
            kept.actor.tell.remote(int(number))

    def _end(self, worker: Worker, end: Exit) -> None:
        """Give its places back. Ray would find a group of a lost node a new one."""
        if worker.exit is not None:
            return
        worker.exit = end
        self._unplaced.discard(worker.name)
        if self._head.answers(self._asked):  # else the question would block, and the keepers see to it
            give_back(self._ray, worker)


def _task(order: Order, argv: Sequence[str]) -> keeper.Task:
    return keeper.Task((*argv,), environment(order), os.getcwd(), str(order.log.absolute()), LINGER)


__all__ = ["RayEngine", "Worker", "stop_workers"]
