"""The driver's side of a fork server, which describes configs and forks the local workers of a command.

This file imports little, so that a command starts its server first and composes its configs meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

DESCRIBE_MODULE = "harness.worker.describe"
PRELOAD = (
    "jax", "harness.models", "harness.models.vetting.mesh_types",
    "harness.training.programs.metric_columns", "harness.training.programs.optimizer_check", DESCRIBE_MODULE,
    "orbax.checkpoint.experimental.v1", "harness.training.run", "harness.worker.scheduler",
    "harness.worker.main",
)  # fmt: skip
"""Modules of the server: first those that describing configs needs, which then need not wait for the rest."""
TICK_SECONDS = 1.0
"""Seconds after which a caller that waits looks whether the server lives."""
_SERVER_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from harness.launcher.engines.local.fork_server import main
main(*sys.argv[2:])
"""
"""Program of the server. sys.path is an argument: PYTHONPATH would precede the standard library."""

Receive = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class ForkRequest:
    """Child to fork, which calls `module.main(arguments, env)`."""

    module: str
    arguments: Sequence[str]
    log: str
    """File to which it appends its errors, and what it prints if there is no `output`."""
    output: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cores: Sequence[int] = ()
    locks: Sequence[str] = ()
    """Files that it locks; it leaves with ALREADY_RUNNING if another process holds one of them."""


class ForkServer:
    """Fork server of this process, which starts with the first child, or before it with `start`, and again
    if it has died."""

    def __init__(self, preload: Sequence[str] = PRELOAD) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._preload = preload
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the server)
        self._receivers: dict[int, Receive] = {}
        self._keys = itertools.count()
        self._partial_line = b""

    @property
    def is_alive(self) -> bool:
        """Return whether the server runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server unless it runs."""
        if self.is_alive:
            return
        self.read_messages()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVER_CODE, json.dumps(sys.path), *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._partial_line = b""

    def fork(self, request: ForkRequest, receive: Receive) -> subprocess.Popen[bytes]:
        """Ask for a child, and return the process of the server. `receive` gets `{"pid"}` once the child runs
        and `{"code"}` once it has ended, while messages are read. Raises BrokenPipeError if the server has
        ended."""
        self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        key = next(self._keys)
        self._receivers[key] = receive
        self.process.stdin.write(json.dumps(asdict(request) | {"key": key}).encode() + b"\n")
        self.process.stdin.flush()
        return self.process

    def read_messages(self, wait_seconds: float = 0.0) -> None:
        """Pass on the messages that the server has sent, the first of which may take `wait_seconds`."""
        if self.process is None or self.process.stdout is None:
            return
        if wait_seconds:
            select.select([self.process.stdout], [], [], wait_seconds)
        while data := self.process.stdout.read():
            *lines, self._partial_line = (self._partial_line + data).split(b"\n")
            for message in map(json.loads, lines):
                self._receivers[message["key"]](message)

    def run(self, request: ForkRequest) -> int:
        """Return the exit status of a child once it has ended. A child that is not waited for to its end is
        ended with the server. Raises RuntimeError if the server dies first."""
        messages: dict[str, int] = {}
        try:
            self.fork(request, lambda message: messages.update(message))
            while "code" not in messages:
                lives = self.is_alive  # before its last messages are read
                self.read_messages(TICK_SECONDS if lives else 0.0)
                if not lives and "code" not in messages:
                    raise BrokenPipeError
        except BrokenPipeError:
            raise RuntimeError(f"the fork server ended: {self.log_text()}") from None
        except BaseException:
            self.close()
            if "pid" in messages:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(messages["pid"], 9)
            raise
        return messages["code"]

    def log_text(self) -> str:
        """Return what the server itself has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def close(self) -> None:
        """End the server; its children go on."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()  # it may still import, and would notice the end of its input only afterwards
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        process.wait()


_shared: list[ForkServer] = []


def current_server() -> ForkServer | None:
    """Return the server of the innermost `shared_server` around this call; None outside."""
    return _shared[0] if _shared else None


@contextmanager
def shared_server() -> Iterator[ForkServer]:
    """Yield the fork server of this process, which the outermost of nested callers closes."""
    if _shared:
        yield _shared[0]
        return
    _shared.append(ForkServer())
    try:
        yield _shared[0]
    finally:
        _shared.pop().close()
