"""A fork server: a process that has imported everything and forks a child in milliseconds.

`main(PRELOAD...)` reads one JSON object per line (`fork_client.ForkRequest`, and a key), forks a child that
calls `MODULE.main(arguments, env)`, and answers `{"key", "pid"}`, later `{"key", "code"}`. It initialises no
JAX backend and imports no module of a user: a child does.

The server ends with its driver. Its children go on: they have a session of their own, so neither Ctrl-C nor
a closed terminal reaches them, and a new driver finds them by their run locks. The fork server of the
standard library joins its children when the driver exits, so it would end them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.jax_setup.hide_ipython import hide_ipython
from harness.core.jax_setup.jax_variables import drop_jax_options
from harness.records.run.run_lock import ALREADY_RUNNING, acquire


def main(*preload: str) -> None:
    """Import the modules, and serve fork requests from stdin until end of input."""
    drop_jax_options()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = _Server()
    gc.disable()  # imports make little garbage, and much that is searched for it
    for name in preload:
        with hide_ipython(), contextlib.suppress(ImportError):
            importlib.import_module(name)
        if not server.serve(is_complete=False):
            return
    gc.freeze()  # a collection in a child would copy every page
    gc.enable()
    while server.serve(is_complete=True):
        pass


class _Server:
    """Requests that wait, and the children by process id."""

    def __init__(self) -> None:
        self._children: dict[int, int] = {}
        self._waiting: list[dict[str, Any]] = []
        self._partial_line = b""
        signal.signal(signal.SIGCHLD, self._report_ends)  # also while a module is imported

    def serve(self, *, is_complete: bool) -> bool:
        """Fork what was asked for. Return False at end of input. Until preloading `is_complete`, wait for
        nothing, and fork only children whose module is there."""
        can_wait = is_complete and not self._waiting
        ready, _, _ = select.select([0], [], [], None if can_wait else 0)
        if ready and not self._read_requests():
            return False
        requests, self._waiting = self._waiting, []
        for request in requests:
            if is_complete or request["module"] in sys.modules:
                pid = _fork(request)
                _send({"key": request["key"], "pid": pid})
                self._children[pid] = request["key"]
            else:
                self._waiting.append(request)
        self._report_ends()
        return True

    def _read_requests(self) -> bool:
        """Read the requests that have arrived. Return False at end of input."""
        data = os.read(0, 1 << 16)
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        self._waiting += map(json.loads, lines)
        return bool(data)

    def _report_ends(self, *_: object) -> None:
        """Report the children that ended. A signal may come at any point of this, and of `serve`."""
        for pid in [*self._children]:
            with contextlib.suppress(ChildProcessError):  # reported by a later signal meanwhile
                ended_pid, status = os.waitpid(pid, os.WNOHANG)
                if ended_pid:
                    _send({"key": self._children.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _send(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _run_child(request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_child(request: dict[str, Any]) -> int:
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _redirect([os.devnull, request["output"] or request["log"], request["log"]])
    if not all(acquire(Path(lock)) for lock in request["locks"]):  # another worker was first
        return ALREADY_RUNNING
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    return importlib.import_module(request["module"]).main(request["arguments"], request["env"])


def _redirect(paths: Sequence[str]) -> None:
    """Open the three standard streams at these paths. Only the server uses the driver's pipes."""
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2)
    for target, (path, mode) in enumerate(zip(paths, flags, strict=True)):
        source = os.open(path, mode, 0o666)
        os.dup2(source, target)
        os.close(source)
