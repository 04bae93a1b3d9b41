"""Engine for workers in a Ray cluster: each has a placement group with a detached actor per process. Actors
are named in a namespace of the sweep, so that a later driver finds them."""

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

from harness.config.process_group import LOOPBACK
from harness.config.schema.engine import RayConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher.engines.engine_api import Exit, WorkerSpec, lost_exit, remote_environment, run_args
from harness.launcher.engines.preflight import run_preflight
from harness.launcher.engines.ray import process_actor, ray_cluster, slice_shape, workers
from harness.launcher.engines.ray.slice_shape import SliceShape, slice_name
from harness.launcher.engines.ray.workers import ActorProcess, RayWorker
from harness.launcher.engines.worker_processes import ProcessGroupHandle, exit_code_text, per_process_specs
from harness.records.run.status import ProcessInfo

REFRESH_SECONDS = 0.1
"""Seconds for which one question to Ray is used for all workers."""
MAX_WAITING_IN_RAY = 64
"""Maximum number of workers that wait inside Ray; further ones wait here, at no cost."""
LINGER_SECONDS = 60.0
"""Seconds for which an actor without a driver keeps the exit status; then it releases its resources."""
START_SECONDS = 10.0
"""Seconds within which a worker starts if there are free resources."""
ANSWER_SECONDS = 10.0
"""Seconds in which running actors of an earlier driver answer."""
PARENT_DEATH_MODULE = "harness.launcher.engines.ray.process_actor"
ADDRESS_FILE = "ray.json"
"""File beside the logs with the address of the head, while workers are in its cluster."""


def stop_workers(logs: Path, ray: Any = None) -> int:
    """Ask the workers of a sweep to save and exit, without its driver. Returns their number."""
    record = atomic_files.read_checksummed_json(logs / ADDRESS_FILE)
    if record is None:
        return 0
    try:
        return RayEngine(RayConfig(record["address"]), logs, ray=ray).stop()
    except UserError as error:
        raise UserError(
            f"cannot ask the Ray at {record['address']} for the workers of {logs.parent} "
            f"({error.__cause__ or error}). If that cluster has ended, its workers have ended too"
        ) from error


class RayEngine:
    """Engine that never blocks on a worker: it asks all at once and takes the answers that are there."""

    def __init__(self, config: RayConfig, logs: Path, module: str = "harness.worker", ray: Any = None):
        self._config, self._logs, self._module = config, logs.absolute(), module
        self._ray, self._connected = ray, False
        self._actor_class: Any = None
        self._pending_answers: dict[Any, tuple[ActorProcess, Callable[[ActorProcess, Any], None]]] = {}
        """Process and handler of the answer, by Ray reference."""
        self._unplaced: set[str] = set()
        self._waiting: deque[RayWorker] = deque()
        self._earlier_workers: dict[str, RayWorker] = {}
        self._last_asked = float("-inf")
        self._head = ray_cluster.HeadMonitor()

    def check(self, specs: Sequence[WorkerSpec], files: Sequence[Path], note: Callable[[str], None]) -> None:
        """Connect, find earlier workers, run the test job. Raises UserError if a worker could not run."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._connect()
        try:
            ray_cluster.largest_fitting_node(self._config, specs, self._ray.nodes())
            if self._config.address is not None:
                self._earlier_workers = self._find_earlier_workers()
                node = ray_cluster.largest_fitting_node(self._config, specs, self._ray.nodes())
                only_there = {f"node:{node['NodeManagerAddress']}": 0.001}  # takes none of its devices
                start = partial(self._enqueue, resources=only_there)
                run_preflight(self, start, self._logs, files, note)
                self._head = ray_cluster.HeadMonitor(self._ray.get_runtime_context().gcs_address)
                record = {"address": self._head.address}
                atomic_files.write_checksummed_json(self._logs / ADDRESS_FILE, record)
        except BaseException:
            self.close()
            raise

    def submit(self, spec: WorkerSpec) -> RayWorker:
        """Take over the earlier worker of this name, or start a new one."""
        worker = self._earlier_workers.pop(spec.name, None)
        if worker is not None:
            return worker
        name, share = ray_cluster.device_resource(self._config, spec), spec.devices // spec.processes
        needs_slice = spec.platform == "tpu" and spec.processes > 1
        shape = SliceShape(name, share, spec.processes) if needs_slice else None
        return self._enqueue(spec, [PARENT_DEATH_MODULE, self._module, *run_args(spec)], {name: share}, shape)

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> RayWorker:
        """Take over the worker with this process. Raises UserError for a live process outside this Ray."""
        for name, worker in self._earlier_workers.items():
            if (worker.leader.host, worker.leader.pid) == (writer.host, writer.pid):
                return self._earlier_workers.pop(name)
        return RayWorker(spec.name, exit=lost_exit(writer, "this Ray"))

    def poll(self, handle: RayWorker) -> Exit | None:
        """Return how the worker ended; None while it waits or runs."""
        self._collect_answers()
        self._update_exit(handle)
        return handle.exit

    def waiting(self, handle: RayWorker) -> str:
        """Return why the worker has not started; empty once it has."""
        if handle.has_started:
            return ""
        new = 0 <= time.monotonic() - handle.requested_at < START_SECONDS
        return "is starting in the cluster" if new else "waits for resources of the cluster"

    def cancel(self, handle: RayWorker, *, hard: bool) -> None:
        """Remove a worker that has not started; else send SIGTERM, or SIGKILL if `hard`."""
        if handle.exit is not None:
            return
        if not handle.has_started:
            self._finish(handle, Exit(None, "it had not started"))
        for process in handle.process_group.members if handle.exit is None else ():
            self._send_signal(process, signal.SIGKILL if hard else signal.SIGTERM)

    def stop(self) -> int:
        """Ask earlier workers to save and exit; remove those that wait. Returns the number of the former.
        Raises UserError if some do not answer."""
        self._connect()
        try:
            running = self._find_earlier_workers()
            processes = [process for worker in running.values() for process in worker.process_group.members]
            if calls := [process.actor.tell.remote(int(signal.SIGTERM)) for process in processes]:
                answers, silent = self._ray.wait(calls, num_returns=len(calls), timeout=ANSWER_SECONDS)
                if silent:
                    raise UserError(f"only {len(answers)} of {len(calls)} processes answered: try again")
            else:
                (self._logs / ADDRESS_FILE).unlink()
            return len(running)
        finally:
            self.close()

    def close(self) -> None:
        """Disconnect. A Ray that was started here ends with its workers; those of another cluster go on."""
        if not self._connected:
            return
        self._connected = False
        has_workers = any(process.worker.exit is None for process, _ in self._pending_answers.values())
        if self._head.address and not has_workers:
            (self._logs / ADDRESS_FILE).unlink(missing_ok=True)
        if self._head.is_reachable(self._last_asked):  # else it would block
            self._ray.shutdown()

    def _connect(self) -> None:
        self._ray = self._ray or ray_cluster.import_ray(self._config)
        ray_cluster.connect(self._ray, self._config, f"ab-harness-{hash_json(str(self._logs))[:12]}")
        self._connected = True
        self._ray.cloudpickle.register_pickle_by_value(process_actor)
        self._actor_class = self._ray.remote(process_actor.ProcessActor)

    # Placing

    def _enqueue(
        self,
        spec: WorkerSpec,
        argv: Sequence[str],
        resources: Mapping[str, float],
        shape: SliceShape | None = None,
    ) -> RayWorker:
        worker = RayWorker(f"{spec.name}#{secrets.token_hex(4)}", resources, shape)
        members, folder = [], os.getcwd()
        host = LOOPBACK if self._config.address is None else process_actor.NODE_ADDRESS
        for process in per_process_specs(spec, host):
            env, log = remote_environment(process), str(process.log.absolute())
            task = process_actor.ProcessTask((*argv,), env, folder, log, LINGER_SECONDS)
            members.append(ActorProcess(worker, task))
        worker.process_group = ProcessGroupHandle(members)
        self._waiting.append(worker)
        self._place_waiting()
        return worker

    def _place_waiting(self) -> None:
        """Place workers in their order; others may pass those that wait for a slice."""
        postponed_workers: list[RayWorker] = []
        full: set[SliceShape | None] = set()
        while self._waiting and len(self._unplaced) < MAX_WAITING_IN_RAY:
            if not self._head.is_reachable(self._last_asked):
                break
            worker = self._waiting.popleft()
            if worker.exit is not None:
                continue
            if worker.shape in full or not self._assign_slice(worker):
                full.add(worker.shape)
                postponed_workers.append(worker)
                continue
            worker.requested_at = time.monotonic()
            workers.request_placement(self._ray, self._actor_class, worker)
            for process in worker.process_group.members:
                self._watch(process)
        self._waiting.extendleft(reversed(postponed_workers))

    def _assign_slice(self, worker: RayWorker) -> bool:
        """Assign a free TPU slice if needed (Ray would use parts of two). Returns False if none is free."""
        if worker.shape is None:
            return True
        neighbours = [process.worker for process, _ in self._pending_answers.values()]
        used = {neighbour.slice for neighbour in neighbours if neighbour.exit is None} - {""}
        matching = slice_shape.matching_slices(worker.shape, self._ray.nodes())
        free = [name for name in matching if name not in used]
        worker.slice = free[0] if free else ""
        return bool(free)

    def _find_earlier_workers(self) -> dict[str, RayWorker]:
        """Return the earlier driver's workers by name if every process has started; remove all others. So no
        worker that has not started yet, perhaps with other code, is taken over."""
        candidates = workers.complete_workers(self._ray)
        for process in (process for worker in candidates for process in worker.process_group.members):
            self._watch(process)
        deadline = time.monotonic() + ANSWER_SECONDS
        while any(worker.name in self._unplaced for worker in candidates) and time.monotonic() < deadline:
            time.sleep(REFRESH_SECONDS)
            self._collect_answers()
        for worker in candidates:
            if not worker.has_started or any(process.exit for process in worker.process_group.members):
                self._finish(worker, Exit(None, "not all of its processes were running"))
        slices = {node["NodeID"]: slice_name(node) for node in self._ray.nodes()} if candidates else {}
        for worker in candidates:
            worker.slice = slices.get(worker.leader.node, "")
        return {worker.name.rpartition("#")[0]: worker for worker in candidates if worker.exit is None}

    # Watching

    def _watch(self, process: ActorProcess) -> None:
        self._unplaced.add(process.worker.name)
        self._pending_answers[process.actor.began.remote()] = (process, self._on_started)
        self._pending_answers[process.actor.wait.remote()] = (process, self._on_exit)

    def _collect_answers(self) -> None:
        """Handle all answers that have arrived, with one question to Ray, and place waiting workers."""
        now = time.monotonic()
        if now - self._last_asked < REFRESH_SECONDS:
            return
        self._last_asked = now
        self._head.check(now)
        if references := [*self._pending_answers]:
            for reference in self._ray.wait(references, num_returns=len(references), timeout=0)[0]:
                self._handle_answer(reference)
        self._place_waiting()

    def _handle_answer(self, reference: Any) -> None:
        process, handle = self._pending_answers.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError:  # the network failed for a moment
            self._watch(process)
        except self._ray.exceptions.RayError as error:
            if self._head.is_reachable(self._last_asked):
                self._set_exit(process, self._exit_of_lost_actor(process, error))
            else:  # nobody can say why now
                self._pending_answers[reference] = (process, handle)
        else:
            handle(process, answer)

    def _on_started(self, process: ActorProcess, answer: dict[str, Any]) -> None:
        process.host, process.pid, process.node = answer["host"], answer["pid"], answer["node"]
        if process.worker.has_started:
            self._unplaced.discard(process.worker.name)
        if answer["failure"]:
            self._set_exit(process, Exit(None, f"the worker cannot be started: {answer['failure']}"))

    def _on_exit(self, process: ActorProcess, code: int | None) -> None:
        if code is not None:
            self._set_exit(process, Exit(code, exit_code_text(code)))

    def _exit_of_lost_actor(self, process: ActorProcess, error: Exception) -> Exit:
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if process.node and process.node not in alive:
            return Exit(None, f"its node {process.host} was lost", preempted=True)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Exit(None, f"its actor was lost: {reason}")

    def _set_exit(self, process: ActorProcess, end: Exit) -> None:
        process.exit = process.exit or end
        self._update_exit(process.worker)

    def _update_exit(self, worker: RayWorker) -> None:
        """Finish the worker if all its processes have ended."""
        if worker.exit is None:
            kill = partial(self._send_signal, number=signal.SIGKILL)
            if (end := worker.process_group.poll(lambda process: process.exit, kill)) is not None:
                self._finish(worker, end)

    def _send_signal(self, process: ActorProcess, number: signal.Signals) -> None:
        if process.exit is None:
            process.actor.tell.remote(int(number))

    def _finish(self, worker: RayWorker, end: Exit) -> None:
        """Record the exit and release the resources."""
        if worker.exit is not None:
            return
        worker.exit = end
        self._unplaced.discard(worker.name)
        if self._head.is_reachable(self._last_asked):  # else it would block; the actors release them later
            workers.release_placement(self._ray, worker)
