"""Workers on this machine, forked from one preloaded server."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.launcher.engines.engine_api import Exit, Order
from harness.launcher.engines.exit_messages import in_words
from harness.launcher.engines.grouped_processes import Gang, shares
from harness.records.paths import RunDir
from harness.records.run.run_lock import check_here
from harness.records.run.status import Writer

PRELOAD = (
    "jax",
    "flax.nnx",
    "optax",
    "orbax.checkpoint.experimental.v1",
    "polars",
    "numpy",
    "harness.data",
    "harness.models",
    "harness.training.run",
)

_SERVE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from harness.launcher.engines.local.fork_server import main
main(*sys.argv[2:])
"""
"""By argument and not by PYTHONPATH, which would stand before the standard library."""


@dataclass
class Local:
    """A worker: its process id as soon as the server has said it, how it ended as soon as that is known."""

    key: str
    server: subprocess.Popen | None = None
    """That forks it, and alone can say how it ended; None for one that is adopted."""
    writer: Writer | None = None
    exit: Exit | None = None
    log: str = ""
    """Where one that is adopted speaks; nobody can know how it ended."""
    wanted: signal.Signals | None = None
    """A signal that arrived before the process id was known."""


class LocalEngine:
    """Starts the server with the first worker, and again should it die. Never waits for a worker."""

    def __init__(
        self, logs: Path, module: str = "harness.worker.main", preload: tuple[str, ...] = PRELOAD
    ) -> None:
        self._logs, self._command = logs, [module, *preload]
        self._server: subprocess.Popen | None = None
        self._handles: dict[str, Local] = {}
        self._keys = (f"{os.getpid()}-{number}" for number in itertools.count())
        self._rest = b""

    def start(self) -> None:
        """Start the server ahead of the first worker: it imports while the driver prepares."""
        if self._server is None or self._server.poll() is not None:
            self._listen()
            self._logs.mkdir(parents=True, exist_ok=True)
            with (self._logs / "forkserver.log").open("ab") as log:
                self._server = subprocess.Popen(
                    [sys.executable, "-c", _SERVE, json.dumps(sys.path), *self._command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            assert self._server.stdout is not None
            os.set_blocking(self._server.stdout.fileno(), False)
            self._rest = b""

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        """Workers have what the driver has, but for runs that another machine trains."""
        for path in (path for order in orders for path in order.runs):
            check_here(RunDir(path))

    def submit(self, order: Order) -> Local | Gang[Local]:
        self.start()
        members = [self._fork(each) for each in shares(order, "127.0.0.1")]
        return Gang(members) if len(members) > 1 else members[0]

    def _fork(self, order: Order) -> Local:
        handle = Local(next(self._keys), self._server)
        request = {
            "key": handle.key,
            "runs": [str(run.absolute()) for run in order.runs],
            "env": dict(order.env),
            "cores": [*order.cores],
            "log": str(order.log.absolute()),
        }
        assert self._server is not None
        assert self._server.stdin is not None
        self._handles[handle.key] = handle
        try:
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            handle.exit = Exit(None, "the fork server ended")
        return handle

    def adopt(self, writer: Writer, order: Order) -> Local:
        for path in order.runs:
            check_here(RunDir(path))
        return Local("adopted", writer=writer, log=str(order.log))

    def poll(self, handle: Local | Gang[Local]) -> Exit | None:
        if isinstance(handle, Gang):
            return handle.poll(self.poll, lambda member: self.cancel(member, hard=True))
        self._listen()
        if handle.exit is None and handle.writer is not None and not handle.writer.alive():
            self._listen()
            if handle.exit is None and not _serving(handle):
                handle.exit = Exit(None, f"the worker ended{handle.log and f' (see {handle.log})'}")
        if handle.exit is None and handle.writer is None and not _serving(handle):
            handle.exit = Exit(None, f"the fork server ended (see {self._logs / 'forkserver.log'})")
        return handle.exit

    def waiting(self, handle: Local) -> str:
        return ""

    def cancel(self, handle: Local | Gang[Local], *, hard: bool) -> None:
        if isinstance(handle, Gang):
            for member in handle.members:
                self.cancel(member, hard=hard)
            return
        handle.wanted = signal.SIGKILL if hard else signal.SIGTERM
        self._signal(handle)

    def close(self) -> None:
        if self._server is not None:
            for stream in (self._server.stdin, self._server.stdout):
                with contextlib.suppress(OSError):
                    if stream:
                        stream.close()
            self._server = None

    def _listen(self) -> None:
        """Take in what the server said."""
        if self._server is None or self._server.stdout is None:
            return
        while piece := self._server.stdout.read():
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))

    def _heard(self, message: dict) -> None:
        handle = self._handles[message["key"]]
        if "pid" in message:
            handle.writer = Writer.of(message["pid"])
            self._signal(handle)
        else:
            handle.exit = Exit(message["code"], in_words(message["code"]))

    def _signal(self, handle: Local) -> None:
        """Send the wanted signal, if the process is known and still the one that it was."""
        if handle.wanted is not None and handle.writer is not None and handle.writer.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle.writer.pid, handle.wanted)


def _serving(handle: Local) -> bool:
    """Whether the server of a worker lives; the one that came after it knows nothing of it."""
    return handle.server is not None and handle.server.poll() is None
