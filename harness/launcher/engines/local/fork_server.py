"""A process that has imported everything and forks a worker in milliseconds.

`main(MODULE, PRELOAD...)` reads one JSON object a line,
`{"key", "runs", "env", "cores", "log"}`, forks a child that calls `MODULE.main(runs, env)`, and answers
`{"key", "pid"}`, later `{"key", "code"}`. It initialises no backend: a child chooses its own devices.

It ends with its driver (end of input), its children do not: its session is not the terminal's, so
neither Ctrl-C nor a closed terminal reaches them, and a new driver finds them by their claims.
The standard library's fork server would end them: it joins its children when the driver exits.
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

from harness.config.process_group import INDEX
from harness.launcher.engines.engine_api import HELD
from harness.records.paths import RunDir
from harness.records.run.run_lock import claim

TICK = 0.1


def main(module: str, *preload: str) -> None:
    for name in (*preload, module):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, str] = {}
    while (requests := _read()) is not None:
        for request in requests:
            pid = _fork(module, request)
            children[pid] = request["key"]
            _say({"key": request["key"], "pid": pid})
        for pid, code in _ended(children):
            _say({"key": children.pop(pid), "code": code})


_buffer = b""


def _read() -> list[dict] | None:
    """Requests that arrived within a tick; None at the end of input."""
    global _buffer
    if not select.select([0], [], [], TICK)[0]:
        return []
    piece = os.read(0, 1 << 16)
    if not piece:
        return None
    *lines, _buffer = (_buffer + piece).split(b"\n")
    return [json.loads(line) for line in lines]


def _say(message: dict) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def _ended(children: dict[int, str]) -> list[tuple[int, int]]:
    found = []
    for pid in [*children]:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _fork(module: str, request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _work(module, request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(module: str, request: dict) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _redirect(Path(request["log"]))
    leads = request["env"].get(INDEX, "0") == "0"  # of several processes, which come and go together
    if leads and not all(claim(RunDir(Path(run)).claim) for run in request["runs"]):
        return HELD
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    return importlib.import_module(module).main(request["runs"], request["env"])


def _redirect(log: Path) -> None:
    """Nothing in, everything out into the log; the pipes to the driver are the server's alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.close(out)
    os.close(nothing)
