"""A real kernel: what a cell shows, and what an interruption leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from harness.records.paths import SweepDir
from harness.records.run.status import State, read_status
from tests.cli.support import clean_env

OVERRIDES = [
    "experiment=attention",
    "variant=mha,hybrid",
    "scale=xs",
    "seed=0",
    "scale.tokens=200_000",
    "rule.positive_control=null",
    "experiment_name=stopped",
]
STAND_IN = """
import subprocess, sys
from harness.api import child_command

SCRIPT = '''
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("saved"), sys.exit(130)))
print("runs/none: 4 runs; 1 scale x 2 variants x 2 seeds")
time.sleep(60)
'''

def start(words):
    line = [sys.executable, "-u", "-c", SCRIPT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(line, start_new_session=True, **pipes)

child_command._start = start
"""


class Cell:
    """A cell that has run: its outputs, the later ones in place of the earlier ones that they replace."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.updates: list[str] = []
        self.error: list[str] = []

    def take(self, message: dict[str, Any]) -> bool:
        """Take a message of the kernel. Return True after the last one."""
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                self.texts.append(content["text"])
            case "display_data" | "execute_result":
                self.texts.append(content["data"]["text/plain"])
            case "update_display_data":
                self.updates.append(content["data"]["text/plain"])
            case "error":
                self.error = content["traceback"]
            case "status":
                return content["execution_state"] == "idle"
        return False


class Kernel:
    """A kernel in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = start_new_kernel(cwd=str(folder), env=clean_env())

    def run(
        self, code: str, interrupt: Callable[[Cell], bool] = lambda _: False, seconds: float = 240
    ) -> Cell:
        """Run a cell, and interrupt the kernel once its outputs are so."""
        cell, identity, end, was_sent = Cell(), self.client.execute(code), time.monotonic() + seconds, False
        while time.monotonic() < end:
            if not was_sent and interrupt(cell):
                self.manager.interrupt_kernel()
                was_sent = True
            try:
                message = self.client.get_iopub_msg(timeout=0.5)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == identity and cell.take(message):
                return cell
        raise AssertionError(f"the cell did not end: {cell.texts}, {cell.updates}")


@pytest.fixture
def kernel(tmp_path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_an_interrupted_cell_waits_for_the_command_and_says_how_to_go_on(kernel):
    """A stand-in for the command; the slow test below has the command itself."""
    kernel.run(STAND_IN)
    cell = kernel.run(
        "import harness\nharness.sweep(['scale=xs'])", lambda cell: "".join(cell.updates).count("4 runs") > 0
    )
    assert cell.error == ["KeyboardInterrupt: Stopped. The same call continues."]
    assert cell.texts == ["preparing the sweep"]
    assert cell.updates[-1].startswith("stopped after 0:")
    mistake = kernel.run("harness.sweep('scale=xs')")
    assert mistake.error == [
        "UserError: harness.sweep('scale=xs'): give a list of overrides, such as ['scale=xs']"
    ]
    assert kernel.run("import sys; print({'jax', 'hydra'} & {*sys.modules})").texts == ["set()\n"]


@pytest.mark.slow
def test_an_interrupted_sweep_has_saved_and_goes_on(kernel, tmp_path):
    call = f"import harness\nsweep = harness.sweep({OVERRIDES})\nprint(sweep.runs['state'].to_list())"
    runs = [SweepDir(tmp_path / "runs" / "stopped").run("xs", variant, 0) for variant in ("mha", "hybrid")]

    def trains(_: Cell) -> bool:
        return all(run.run.exists() and read_status(run).step > 5 for run in runs)

    cell = kernel.run(call, trains)
    assert cell.error == ["KeyboardInterrupt: Stopped. The same call continues."]
    assert "stopped; 0 of 2 runs have ended" in cell.updates[-1]
    saved = [read_status(run) for run in runs]
    assert {status.state for status in saved} == {State.preempted}
    assert all(run.manifest(status.step).exists() for run, status in zip(runs, saved, strict=True))
    assert not _commands(tmp_path)
    again = kernel.run(call)
    assert (again.error, again.texts[-1]) == ([], "['finished', 'finished']\n")
    assert "finished; 2 of 2 runs have ended" in again.updates[-1]
    assert all(read_status(run).attempt > status.attempt for run, status in zip(runs, saved, strict=True))


@pytest.mark.slow
def test_a_kernel_that_is_killed_leaves_a_sweep_that_has_saved(kernel, tmp_path):
    run = SweepDir(tmp_path / "runs" / "stopped").run("xs", "mha", 0)
    kernel.client.execute(f"import harness\nharness.sweep({OVERRIDES})")
    _wait(lambda: run.run.exists() and read_status(run).step > 5)
    os.kill(kernel.manager.provisioner.pid, 9)
    _wait(lambda: not _commands(tmp_path))
    status = read_status(run)
    assert status.state in (State.preempted, State.finished)
    assert run.manifest(status.step).exists()


def _wait(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def _commands(folder: Path) -> list[str]:
    """Return the processes that work in a folder, but for the kernel."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if (process / "cwd").resolve() == folder and "ipykernel_launcher" not in words:
                commands.append(" ".join(words))
        except OSError:
            continue
    return commands
