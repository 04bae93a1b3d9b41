"""One small job before the first worker: that a node sees the same files, has the libraries and this harness,
and tells the same time.

The node's side is `python -m harness.launcher.engines.preflight FOLDER TOKEN NEED...`.
"""

from __future__ import annotations

import importlib
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit, Order
from harness.records.run.provenance import code_hash
from harness.records.run.run_lock import WAY_OUT, claim, holder, release

SKEW = 60.0
"""Seconds by which clocks may differ: the times of a run's record would contradict each other."""
VISIBLE = 15.0
"""Seconds after the job's end in which its file must be seen here; network file systems cache for some."""
TICK = 0.2
MODULE = "harness.launcher.engines.preflight"
PROBE = "probe"
"""Its name as a worker, and what all its files begin with."""
IMPORTS = ("jax.numpy", "harness.training.run", "harness.worker")
"""The bare name `jax` could be imported from an empty folder."""
LINES = 3
"""Of its log that are quoted: a module that cannot be loaded is said before the Python that is not there."""


class Engine(Protocol):
    """As much of an engine as a probe needs."""

    def poll(self, handle: Any) -> Exit | None: ...

    def waiting(self, handle: Any) -> str: ...

    def cancel(self, handle: Any, *, hard: bool) -> None: ...

    def close(self) -> None: ...


def probe(
    engine: Engine,
    start: Callable[[Order, Sequence[str]], Any],
    folder: Path,
    needs: Sequence[Path],
    note: Callable[[str], None],
) -> None:
    """Raises UserError with the first thing that a node lacks, and then leaves nothing: what its log said
    that matters stands in the sentence, since a log of what never began is one more thing to find and to
    clear away. `needs`: what it must be able to read."""
    _clear(folder)
    token = secrets.token_hex(8)
    ask, answer, lock = _files(folder, token)
    order = Order(PROBE, (), {}, folder / f"{PROBE}.log")
    paths = [str(path.absolute()) for path in (folder, *needs)]
    try:
        claim(lock)
        atomic_files.write_bytes(ask, token.encode())
        end = _wait(engine, start(order, [MODULE, paths[0], token, *paths[1:]]), note)
        _judge(_read(answer, end, order.log), end, order.log)
    except BaseException:
        engine.close()
        _clear(folder)
        raise
    finally:
        release(lock)
        for file in (ask, answer, lock):
            file.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Of this probe, or of one whose driver was killed: files, scripts and logs."""
    for file in folder.glob(f"{PROBE}[.-]*"):
        file.unlink(missing_ok=True)


def _files(folder: Path, token: str) -> tuple[Path, Path, Path]:
    """Question, answer, and what the driver holds meanwhile."""
    ask, answer, lock = (folder / f"{PROBE}-{token}.{kind}" for kind in ("ask", "json", "lock"))
    return ask, answer, lock


def _wait(engine: Engine, handle: Any, note: Callable[[str], None]) -> Exit:
    said: set[str] = set()
    try:
        while (end := engine.poll(handle)) is None:
            why = engine.waiting(handle)
            if why and why not in said and len(said) < 5:
                note(f"the probe of a node {why}")
                said.add(why)
            time.sleep(TICK)
        return end
    except BaseException:
        engine.cancel(handle, hard=True)
        raise


def _read(answer: Path, end: Exit, log: Path) -> dict[str, Any] | None:
    """None where there is no answer; of a job that failed, none is to come once its log is seen, and of one
    that was not let finish, none at all."""
    deadline = time.monotonic() + VISIBLE
    while time.monotonic() < deadline:
        found = atomic_files.read_json(answer)
        if isinstance(found, dict):
            return found | {"seen": time.time()}
        if end.code is None or (end.code and _said(end, log)):
            break
        time.sleep(TICK)
    return None


def _said(end: Exit, log: Path) -> str:
    """By the node, else by the scheduler."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    told = [line.strip() for line in lines if line.strip()]
    return "; ".join(told[-LINES:]) or end.said


def _judge(found: dict[str, Any] | None, end: Exit, log: Path) -> None:
    if found is None:
        if said := _said(end, log):
            raise UserError(
                f"{sys.executable} does not run the harness on a node ({said}); install it where nodes "
                "see it, or by Slurm load it in engine.slurm.setup=[...]"
            )
        if end.code is None:
            raise UserError(f"no node could be asked before the first worker: {end.words}")
        raise UserError(
            f"{log.parent}: a node was to write there, and nothing is seen here ({end.words}): the folder is "
            "not shared; choose one that every node sees with runs=..."
        )
    if found["failure"]:
        raise UserError(f"node {found['host']}: {found['failure']}")
    if found["code"] != code_hash():
        raise UserError(
            f"node {found['host']}: its harness has other code than this one, and what was trained would not "
            "be what is recorded; install the same there, or work in a checkout that every node sees"
        )
    ahead = found["time"] - found["seen"]
    if ahead > SKEW or ahead < -(SKEW + VISIBLE):
        side = "ahead of" if ahead > 0 else "behind"
        raise UserError(
            f"node {found['host']}: its clock is {abs(ahead):.0f} s {side} this machine's; set them alike "
            f"(they may differ by {SKEW:.0f} s)"
        )


def answer(folder: Path, token: str, needs: Sequence[str]) -> None:
    """On the node: say what is here."""
    failure = _failure(folder, token, needs)  # takes its time
    found = {"host": socket.gethostname(), "failure": failure, "code": code_hash(), "time": time.time()}
    atomic_files.write_json(_files(folder, token)[1], found)


def _failure(folder: Path, token: str, needs: Sequence[str]) -> str:
    """One sentence, or nothing."""
    ask, _, lock = _files(folder, token)
    if not ask.exists() or ask.read_text() != token:
        return f"{folder} is another folder there: choose one that every node sees with runs=..."
    if holder(lock) is None:
        return f"locks on files in {folder} do not reach it, and two workers could train one run: {WAY_OUT}"
    for need in needs:
        if not Path(need).exists():
            return f"{need} is not there: put the data where every node sees them"
    for module in IMPORTS:
        try:
            importlib.import_module(module)
        except Exception as error:
            why = f"{sys.executable} cannot import {module} ({error})"
            return f"{why}: install it there, or by Slurm load it in engine.slurm.setup=[...]"
    return ""


if __name__ == "__main__":
    answer(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
