"""What of the harness lives inside Ray: an actor that starts one process, waits for it and passes signals on.

The class is sent by value and needs nothing but Python, so that a node without the harness can say so.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = "<the address of its node>"
"""In a value of a task's environment: what the node is called by others."""


@dataclass(frozen=True)
class Task:
    """`python -m argv`, in this folder, with this added to the node's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    log: str
    linger: float
    """Seconds after the end for which a driver may ask how it was; then the place is given back."""


class Keeper:
    """Its thread outlives the process that it starts: the process dies with the thread (engines.kept)."""

    def __init__(self, group: str, task: Task) -> None:
        self._group, self._task = group, task
        self._process: subprocess.Popen | None = None
        self._failure = ""
        self._begun, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def began(self) -> dict[str, Any]:
        """Where the process runs, or why it does not."""
        self._begun.wait()
        pid = self._process.pid if self._process else 0
        return {"host": socket.gethostname(), "pid": pid, "node": _node(), "failure": self._failure}

    def wait(self) -> int | None:
        """Returns at the end of the process, with its status; negative for a signal."""
        self._ended.wait()
        return self._process.returncode if self._process else None

    def tell(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _keep(self) -> None:
        try:
            self._process = _started(self._task)
        except OSError as error:
            self._failure = str(error)
        self._begun.set()
        if self._process is not None:
            self._process.wait()
        self._ended.set()
        threading.Event().wait(self._task.linger)
        _leave(self._group)


def _started(task: Task) -> subprocess.Popen:
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}  # Ray sets it to 1
    own = {key: value.replace(HERE, _address()) for key, value in task.env.items() if HERE in value}
    if not Path(task.log).parent.is_dir():  # the driver made it, and a node must see it
        raise OSError(f"{Path(task.log).parent} is not there: choose one that every node sees with runs=...")
    with Path(task.log).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *task.argv],
            env=env | dict(task.env) | own,
            cwd=task.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _node() -> str:
    return importlib.import_module("ray").get_runtime_context().get_node_id()


def _address() -> str:
    return importlib.import_module("ray").util.get_node_ip_address()


def _leave(group: str) -> None:
    """It takes its actors along."""
    util = importlib.import_module("ray").util
    util.remove_placement_group(util.get_placement_group(group))
