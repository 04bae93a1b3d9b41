"""A test job before the first worker: a node must see the same files, have the libraries and this version of
the harness, and have the same time.

On the node runs `python -m harness.launcher.engines.preflight FOLDER TOKEN REQUIRED_FILE...`.
"""

from __future__ import annotations

import importlib
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.core import atomic_files
from harness.core.cache.cache_dir import VARIABLE, cache_root
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Engine, Exit, WorkerSpec
from harness.launcher.engines.worker_processes import log_lines
from harness.records.run.provenance import code_hash
from harness.records.run.run_lock import WAY_OUT, acquire, owner, release

MAX_CLOCK_SKEW_SECONDS = 60.0
"""Seconds by which clocks may differ; the times in a run's record must not contradict each other."""
FILE_VISIBLE_SECONDS = 15.0
"""Seconds after the job's end until its answer must be visible here; network file systems cache."""
TICK_SECONDS = 0.2
MODULE = "harness.launcher.engines.preflight"
PREFLIGHT_NAME = "probe"
"""Name of the test job, and the prefix of its files."""
REQUIRED_IMPORTS = ("jax.numpy", "harness.training.run", "harness.worker")
"""Modules that a node must import. Not bare `jax`: an empty folder of that name could be imported."""
QUOTED_LOG_LINES = 3
"""Number of log lines that are quoted: a failed `module load` is printed before the missing Python."""


def run_preflight(
    engine: Engine,
    start: Callable[[WorkerSpec, Sequence[str]], Any],
    folder: Path,
    files: Sequence[Path],
    note: Callable[[str], None],
) -> None:
    """Run the test job. Raises UserError with the first problem of the node. After an error no file remains:
    the message quotes the log. `files`: files that a node must read."""
    _remove_files(folder)
    token = secrets.token_hex(8)
    question, answer, lock = _exchange_files(folder, token)
    spec = WorkerSpec(PREFLIGHT_NAME, (), {}, folder / f"{PREFLIGHT_NAME}.log")
    paths = [str(path.absolute()) for path in (folder, *files)]
    try:
        acquire(lock)
        atomic_files.write_bytes(question, token.encode())
        end = _wait_for_exit(engine, start(spec, [MODULE, paths[0], token, *paths[1:]]), note)
        _check_answer(_read_answer(answer, end, spec.log), end, spec.log)
    except BaseException:
        engine.close()
        _remove_files(folder)
        raise
    finally:
        release(lock)
        for file in (question, answer, lock):
            file.unlink(missing_ok=True)


def _remove_files(folder: Path) -> None:
    """Remove the files, scripts and logs of this test job, and of one whose driver was killed."""
    for file in folder.glob(f"{PREFLIGHT_NAME}[.-]*"):
        file.unlink(missing_ok=True)


def _exchange_files(folder: Path, token: str) -> tuple[Path, Path, Path]:
    """Return the paths of the question, the answer, and the lock that the driver holds meanwhile."""
    question, answer, lock = (folder / f"{PREFLIGHT_NAME}-{token}.{kind}" for kind in ("ask", "json", "lock"))
    return question, answer, lock


def _wait_for_exit(engine: Engine, handle: Any, note: Callable[[str], None]) -> Exit:
    reasons: set[str] = set()
    try:
        while (end := engine.poll(handle)) is None:
            reason = engine.waiting(handle)
            if reason and reason not in reasons and len(reasons) < 5:
                note(f"the test job {reason}")
                reasons.add(reason)
            time.sleep(TICK_SECONDS)
        return end
    except BaseException:
        engine.cancel(handle, hard=True)
        raise


def _read_answer(answer: Path, end: Exit, log: Path) -> dict[str, Any] | None:
    """Wait for the answer file. Returns None if the job failed and its log is visible, or after a timeout."""
    deadline = time.monotonic() + FILE_VISIBLE_SECONDS
    while time.monotonic() < deadline:
        content = atomic_files.read_json(answer)
        if isinstance(content, dict):
            return content | {"seen": time.time()}
        if end.code is None or (end.code and _last_output(end, log)):
            break
        time.sleep(TICK_SECONDS)
    return None


def _last_output(end: Exit, log: Path) -> str:
    """Return the last lines of the log, else the message of the scheduler."""
    return "; ".join(log_lines(log)[-QUOTED_LOG_LINES:]) or end.scheduler_message


def _check_answer(answer: dict[str, Any] | None, end: Exit, log: Path) -> None:
    if answer is None:
        if output := _last_output(end, log):
            raise UserError(
                f"{sys.executable} cannot run the harness on a node ({output}). Install it where every node "
                "sees it, or with Slurm load it in engine.slurm.setup=[...]"
            )
        if end.code is None:
            raise UserError(f"the test job before the first worker did not run: {end.message}")
        raise UserError(
            f"{log.parent} is not shared: the test job should have written a file there, but none appeared "
            f"({end.message}). {_other_folder(log.parent)}"
        )
    if answer["failure"]:
        raise UserError(f"node {answer['host']}: {answer['failure']}")
    if answer["code"] != code_hash():
        raise UserError(
            f"node {answer['host']} has another version of the harness, so the recorded code hash would be "
            "wrong. Install the same version there, or work in a checkout that every node sees"
        )
    ahead = answer["time"] - answer["seen"]
    if ahead > MAX_CLOCK_SKEW_SECONDS or ahead < -(MAX_CLOCK_SKEW_SECONDS + FILE_VISIBLE_SECONDS):
        side = "ahead of" if ahead > 0 else "behind"
        raise UserError(
            f"node {answer['host']}: its clock is {abs(ahead):.0f} s {side} this machine's. "
            f"Synchronise the clocks: they may differ by {MAX_CLOCK_SKEW_SECONDS:.0f} s"
        )


def _other_folder(folder: Path) -> str:
    setting = (
        f"{VARIABLE}=FOLDER" if folder.absolute().is_relative_to(cache_root().absolute()) else "runs=..."
    )
    return f"Choose a folder that every node sees, with {setting}"


def write_answer(folder: Path, token: str, files: Sequence[str]) -> None:
    """Write the answer of this node."""
    failure = _find_failure(folder, token, files)  # takes its time
    content = {"host": socket.gethostname(), "failure": failure, "code": code_hash(), "time": time.time()}
    atomic_files.write_json(_exchange_files(folder, token)[1], content)


def _find_failure(folder: Path, token: str, files: Sequence[str]) -> str:
    """Return the first problem of this node in one sentence; empty if there is none."""
    question, _, lock = _exchange_files(folder, token)
    if not question.exists() or question.read_text() != token:
        return f"{folder} is a different folder there. {_other_folder(folder)}"
    if owner(lock) is None:
        return f"file locks in {folder} do not reach this node, so two workers could train one run: {WAY_OUT}"
    for path in files:
        if not Path(path).exists():
            return f"{path} is not there. Put the data where every node sees it"
    for module in REQUIRED_IMPORTS:
        try:
            importlib.import_module(module)
        except Exception as error:
            problem = f"{sys.executable} cannot import {module} ({error})"
            return f"{problem}. Install it there, or with Slurm load it in engine.slurm.setup=[...]"
    return ""


if __name__ == "__main__":
    write_answer(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
