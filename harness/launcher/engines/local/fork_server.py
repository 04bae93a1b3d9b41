"""A fork server: a process that has imported everything and forks a worker in milliseconds.

`main(MODULE, PRELOAD...)` reads one JSON object per line,
`{"key", "runs", "env", "cores", "locks", "log"}`, forks a child that calls `MODULE.main(runs, env)`, and
answers `{"key", "pid"}`, later `{"key", "code"}`. It initialises no JAX backend: a child chooses its own
devices.

The server exits with its driver (end of input). Its children go on: they have a session of their own, so
neither Ctrl-C nor a closed terminal reaches them, and a new driver finds them by their run locks.
The fork server of the standard library joins its children when the driver exits, so it would end them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

from harness.config.process_group import INDEX_VARIABLE
from harness.launcher.engines.engine_api import ALREADY_RUNNING
from harness.records.paths import RunDir
from harness.records.run.run_lock import acquire

TICK_SECONDS = 0.1


def main(module: str, *preload: str) -> None:
    """Serve fork requests from stdin until end of input."""
    for name in (*preload, module):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, str] = {}
    while (requests := _read_requests()) is not None:
        for request in requests:
            pid = _fork(module, request)
            children[pid] = request["key"]
            _send({"key": request["key"], "pid": pid})
        for pid, status in [os.waitpid(pid, os.WNOHANG) for pid in children]:
            if pid:  # it has ended
                _send({"key": children.pop(pid), "code": os.waitstatus_to_exitcode(status)})


_buffer = b""


def _read_requests() -> list[dict] | None:
    """Return the requests that arrived within a tick; None at end of input."""
    global _buffer
    if not select.select([0], [], [], TICK_SECONDS)[0]:
        return []
    data = os.read(0, 1 << 16)
    if not data:
        return None
    *lines, _buffer = (_buffer + data).split(b"\n")
    return [json.loads(line) for line in lines]


def _send(message: dict) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _fork(module: str, request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _run_worker(module, request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_worker(module: str, request: dict) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _redirect_output(Path(request["log"]))
    is_primary = request["env"].get(INDEX_VARIABLE, "0") == "0"  # process 0 holds the locks of its group
    if is_primary and not all(acquire(RunDir(Path(run)).worker_lock) for run in request["runs"]):
        return ALREADY_RUNNING
    if not all(acquire(Path(lock)) for lock in request["locks"]):  # another sweep was first to take a device
        return ALREADY_RUNNING
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    return importlib.import_module(module).main(request["runs"], request["env"])


def _redirect_output(log: Path) -> None:
    """Read stdin from /dev/null and write all output to the log. Only the server uses the driver's pipes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    devnull = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((devnull, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(out)
    os.close(devnull)
