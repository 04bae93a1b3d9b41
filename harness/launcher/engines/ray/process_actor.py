"""The Ray actor of the harness: it starts one process, waits for it and forwards signals.

The class is pickled by value and needs only Python, so a node without the harness can report that.
`python -m harness.launcher.engines.ray.process_actor MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...`
in a process that the kernel kills when the actor that started it dies.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE_ADDRESS = "<the address of its node>"
"""Placeholder in values of a task's environment for the node's address in the cluster."""
PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux: the signal is sent when the thread that started this process ends."""


@dataclass(frozen=True)
class ProcessTask:
    """The command `python -m argv` in `folder`, with `env` added to the node's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    log: str
    linger_seconds: float
    """Seconds after its end in which drivers can ask for the exit status, before resources are released."""


class ProcessActor:
    """Actor with a thread that starts the process; the process dies with the thread (`main`). Drivers of
    other versions call `began`, `wait` and `tell`, so the names and their answers must stay."""

    def __init__(self, group: str, task: ProcessTask) -> None:
        self._group, self._task = group, task
        self._process: subprocess.Popen | None = None
        self._failure = ""
        self._start_event, self._end_event = threading.Event(), threading.Event()
        threading.Thread(target=self._run_process, daemon=True).start()

    def began(self) -> dict[str, Any]:
        """Block until the process has started; return its host, pid and node, or why it failed."""
        self._start_event.wait()
        pid = self._process.pid if self._process else 0
        return {"host": socket.gethostname(), "pid": pid, "node": _node_id(), "failure": self._failure}

    def wait(self) -> int | None:
        """Block until the process ends; return its exit status, negative for a signal."""
        self._end_event.wait()
        return self._process.returncode if self._process else None

    def tell(self, number: int) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            self._process.send_signal(number)

    def _run_process(self) -> None:
        try:
            self._process = _start_process(self._task)
        except OSError as error:
            self._failure = str(error)
        self._start_event.set()
        if self._process is not None:
            self._process.wait()
        self._end_event.set()
        threading.Event().wait(self._task.linger_seconds)
        util = importlib.import_module("ray").util
        util.remove_placement_group(util.get_placement_group(self._group))  # and with it this actor


def _start_process(task: ProcessTask) -> subprocess.Popen:
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}  # Ray sets it to 1
    for key, value in task.env.items():
        env[key] = value.replace(NODE_ADDRESS, _node_address()) if NODE_ADDRESS in value else value
    if not Path(task.log).parent.is_dir():  # the driver made it, and a node must see it
        raise OSError(f"{Path(task.log).parent} is not there. Choose one that every node sees with runs=...")
    with Path(task.log).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *task.argv],
            env=env,
            cwd=task.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _node_id() -> str:
    return importlib.import_module("ray").get_runtime_context().get_node_id()


def _node_address() -> str:
    return importlib.import_module("ray").util.get_node_ip_address()


def main(module: str) -> None:
    """Run `module` as `__main__` after asking for SIGKILL at the parent's death."""
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    del sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
