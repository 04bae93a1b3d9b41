"""Engine for workers on this machine, forked from one preloaded server."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.process_group import INDEX_VARIABLE, LOOPBACK
from harness.core.file_locks import host_dir
from harness.core.paths import file_name
from harness.launcher.engines.engine_api import Exit, WorkerSpec, run_args
from harness.launcher.engines.local.fork_client import ForkRequest, ForkServer
from harness.launcher.engines.local.host_devices import VARIABLES, HostDevices, find_devices
from harness.launcher.engines.worker_processes import ProcessGroupHandle, exit_code_text, per_process_specs
from harness.records.paths import RunDir
from harness.records.run.run_lock import check_not_run_elsewhere, owner
from harness.records.run.status import ProcessInfo


@dataclass
class LocalWorker:
    """A worker. `writer` is set once the server has reported its process id, `exit` once it has ended."""

    server: subprocess.Popen | None = None
    """Process of the fork server that reports its exit status; None for an adopted worker."""
    writer: ProcessInfo | None = None
    exit: Exit | None = None
    log: str = ""
    """Log of an adopted worker, whose exit status cannot be known."""
    pending_signal: signal.Signals | None = None
    """Signal to send once the process id is known."""
    devices: tuple[str, ...] = ()
    """Accelerators that it has to itself, by their names in the variable of the platform."""


@dataclass(frozen=True)
class QueuedWorker:
    """Worker that waits for accelerators: its processes, each with its spec."""

    handles: list[LocalWorker]
    specs: list[WorkerSpec]

    @property
    def num_devices(self) -> int:
        """Number of devices of all processes."""
        return self.specs[0].devices


class LocalEngine:
    """Engine of this machine. Its fork server is restarted if it dies."""

    def __init__(
        self, logs: Path, module: str = "harness.worker.main", server: ForkServer | None = None
    ) -> None:
        """Make an engine whose workers call `module.main`. Without a `server` it has one of its own."""
        self._logs, self._module = logs, module
        self._server, self._owns_server = server or ForkServer(), server is None
        self._handles: list[LocalWorker] = []
        self._queue: list[QueuedWorker] = []
        self._inventory: HostDevices | None = None
        """Accelerators of this host; None for simulated devices, or if one worker has all of them."""

    def start(self) -> None:
        """Start the server before the first worker, so that it imports while the driver prepares."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._server_log.touch()
        self._server.start()

    @property
    def _server_log(self) -> Path:
        return self._logs / "forkserver.log"

    def _write_server_log(self) -> None:
        self._server_log.write_text(self._server.log_text())

    def check(self, specs: Sequence[WorkerSpec], files: Sequence[Path], note: Callable[[str], None]) -> None:
        """Raise UserError if another machine trains one of the runs, or if this one has too few accelerators
        for a worker. Workers have all else that the driver has."""
        for path in (path for spec in specs for path in spec.runs):
            check_not_run_elsewhere(RunDir(path))
        if (
            not specs
            or specs[0].platform == "cpu"
            or (len(specs) == 1 and specs[0].platform not in VARIABLES)
        ):
            return
        self._inventory = find_devices(specs[0].platform)
        for spec in specs:
            self._inventory.check_width(spec.devices, spec.name)
        widths = sorted({spec.devices for spec in specs})
        counts = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
        devices = f"{len(self._inventory)} {self._inventory.platform} devices ({self._inventory.origin})"
        note(f"This host shows {devices}; each worker sees {counts} of them, which no other worker sees.")

    def submit(self, spec: WorkerSpec) -> LocalWorker | ProcessGroupHandle[LocalWorker]:
        """Fork a worker, as soon as it has accelerators of its own: one handle, or a group for several
        processes."""
        specs = per_process_specs(spec, LOOPBACK)
        handles = [LocalWorker() for _ in specs]
        self._queue.append(QueuedWorker(handles, specs))
        self._start_queued()
        return ProcessGroupHandle(handles) if len(handles) > 1 else handles[0]

    def _start_queued(self) -> None:
        """Start workers in the order in which they came, so that a wide one is not overtaken for ever."""
        while self._queue and (ranges := self._ranges_for(self._queue[0])) is not None:
            queued = self._queue.pop(0)
            self.start()
            for handle, spec, names in zip(queued.handles, queued.specs, ranges, strict=True):
                self._request_fork(handle, spec, names)

    def _ranges_for(self, queued: QueuedWorker) -> list[tuple[str, ...]] | None:
        """Return the accelerators of each process of a worker, or None if too few are free. Simulated devices
        have no names."""
        count = len(queued.specs)
        if self._inventory is None:
            return [()] * count
        names = self._inventory.range_for(queued.num_devices, self._busy_devices())
        width = queued.num_devices // count
        if names is None:
            return None
        return [names[index * width : (index + 1) * width] for index in range(count)]

    def _busy_devices(self) -> set[str]:
        """Return the accelerators that a worker of this sweep, or of another one of this user, has taken."""
        assert self._inventory is not None
        names_in_use = {name for handle in self._handles if handle.exit is None for name in handle.devices}
        return names_in_use | {name for name in self._inventory.names if owner(self._device_lock(name))}

    def _device_lock(self, name: str) -> Path:
        assert self._inventory is not None
        return host_dir() / file_name(f"{self._inventory.platform}-{name}.lock")

    def _request_fork(self, handle: LocalWorker, spec: WorkerSpec, names: tuple[str, ...]) -> None:
        visible = self._inventory.environment(names) if self._inventory else {}
        handle.devices = names
        is_primary = spec.env.get(INDEX_VARIABLE, "0") == "0"  # process 0 holds the locks of its group
        run_locks = [RunDir(run.absolute()).worker_lock for run in spec.runs] if is_primary else []
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        request = ForkRequest(
            self._module,
            run_args(spec),
            str(spec.log.absolute()),
            env={**spec.env, **visible},
            cores=spec.cores,
            locks=[str(lock) for lock in (*run_locks, *map(self._device_lock, names))],
        )
        self._handles.append(handle)
        try:
            handle.server = self._server.fork(request, functools.partial(_receive, handle))
        except BrokenPipeError:
            handle.exit = Exit(None, "the fork server ended")

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> LocalWorker:
        """Return a handle for a worker of an earlier driver. Raises UserError if it is on another machine."""
        for path in spec.runs:
            check_not_run_elsewhere(RunDir(path))
        return LocalWorker(writer=writer, log=str(spec.log))

    def poll(self, handle: LocalWorker | ProcessGroupHandle[LocalWorker]) -> Exit | None:
        """Return how the worker ended; None while it runs."""
        if isinstance(handle, ProcessGroupHandle):
            return handle.poll(self.poll, lambda member: self.cancel(member, hard=True))
        self._server.read_messages()
        self._start_queued()
        if handle.exit is not None or self._queued(handle):
            return handle.exit
        if handle.exit is None and handle.writer is not None and not handle.writer.alive():
            self._server.read_messages()
            if handle.exit is None and not _server_lives(handle):
                handle.exit = Exit(None, f"the worker ended{handle.log and f' (see {handle.log})'}")
        if handle.exit is None and handle.writer is None and not _server_lives(handle):
            self._write_server_log()
            handle.exit = Exit(None, f"the fork server ended (see {self._server_log})")
        return handle.exit

    def waiting(self, handle: LocalWorker | ProcessGroupHandle[LocalWorker]) -> str:
        """Return which accelerators a worker waits for; '' once it has started."""
        first = handle.members[0] if isinstance(handle, ProcessGroupHandle) else handle
        queued = self._queued(first)
        if queued is None or self._inventory is None:
            return ""
        busy = [name for name in self._inventory.names if name in self._busy_devices()]
        devices = f"{queued.num_devices} of {len(self._inventory)} {self._inventory.platform} devices"
        return f"waits for {devices}; busy: {', '.join(busy) or 'none'}"

    def _queued(self, handle: LocalWorker) -> QueuedWorker | None:
        return next((queued for queued in self._queue if handle in queued.handles), None)

    def cancel(self, handle: LocalWorker | ProcessGroupHandle[LocalWorker], *, hard: bool) -> None:
        """Send SIGTERM, or SIGKILL if `hard`, to each process of the worker."""
        if isinstance(handle, ProcessGroupHandle):
            for member in handle.members:
                self.cancel(member, hard=hard)
            return
        if queued := self._queued(handle):
            self._queue.remove(queued)
            for member in queued.handles:
                member.exit = Exit(None, "it had not started", preempted=True)
            return
        handle.pending_signal = signal.SIGKILL if hard else signal.SIGTERM
        _send_signal(handle)

    def close(self) -> None:
        """Let a server of its own end; workers go on."""
        if self._server_log.exists():
            self._write_server_log()
        if self._owns_server:
            self._server.close()


def _receive(handle: LocalWorker, message: Mapping[str, Any]) -> None:
    """Take the process id or the exit status of a worker from its server."""
    if "pid" in message:
        handle.writer = ProcessInfo.from_pid(message["pid"])
        _send_signal(handle)
    else:
        handle.exit = Exit(message["code"], exit_code_text(message["code"]))


def _send_signal(handle: LocalWorker) -> None:
    """Send the pending signal if the process is known and has not been replaced by another one."""
    if handle.pending_signal is not None and handle.writer is not None and handle.writer.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle.writer.pid, handle.pending_signal)


def _server_lives(handle: LocalWorker) -> bool:
    """Return whether the worker's own server runs; a restarted server does not know the worker."""
    return handle.server is not None and handle.server.poll() is None
