"""What a command said after a flip, and whether it says so without one too."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import signal
import subprocess
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import main
from harness.records.paths import SweepDir
from tests.flips.masters import PATIENCE, Master, command, command_env


@dataclass(frozen=True)
class Answer:
    """End of one command."""

    status: int | str
    """Exit status, or `hang` or `traceback`."""
    text: str
    lines: frozenset[str]
    """Its sentences, with digits folded."""
    content: Any = None
    """The JSON that `compare` printed."""
    output: str = ""
    """Its standard output alone."""

    @property
    def broke(self) -> bool:
        return isinstance(self.status, str)


def compare(sweep: SweepDir) -> Answer:
    """`harness compare --json` in this process."""
    answer = _call("compare", str(sweep.path), "--json")
    try:
        content = json.loads(answer.text)
    except ValueError:
        return answer
    lines = frozenset(fold(line) for line in _sentences(content))
    return Answer(answer.status, answer.text, lines, content)


def verify(run: Path, step: int | None) -> Answer:
    """`harness verify` in this process, which keeps JAX for the next one."""
    return _call("verify", str(run) if step is None else f"{run}@{step}")


def continue_sweep(folder: Path, master: Master) -> Answer:
    """`harness sweep` again, in a process of its own."""
    return run(folder, "sweep", *master.arguments)


def run(folder: Path, *arguments: str) -> Answer:
    """Any command in a process of its own; with the cache of the folder, if it has one."""
    cache = {"AB_HARNESS_CACHE": str(folder / "cache")} if (folder / "cache").exists() else {}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=command_env() | cache, stdout=pipe, stderr=pipe, text=True
    )
    try:
        (output, errors), status = process.communicate(timeout=PATIENCE), process.returncode
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # the driver ends its workers
        (output, errors), status = process.communicate(), "hang"
    answer = _answer("traceback" if "Traceback (most recent" in output + errors else status, output + errors)
    return dataclasses.replace(answer, output=output)


def with_logs(answer: Answer, logs: Iterable[Path]) -> Answer:
    """The answer with the lines of logs that it names."""
    named = [log for log in logs if log.is_file() and "/".join(log.parts[-4:]) in answer.text]
    lines = (fold(line) for log in named for line in log.read_text(errors="replace").splitlines())
    return dataclasses.replace(answer, lines=answer.lines | {*lines})


def fold(line: str) -> str:
    """Fold what differs between two equal commands: hashes, digits, folders."""
    line = re.sub(r"\S*/runs/", "", line)
    return re.sub(r"\d+", "#", re.sub(r"\b[0-9a-f]{12,64}\b", "#", line)).strip()


def _call(*arguments: str) -> Answer:
    out = io.StringIO()
    try:
        with _time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status: int | str = main([*arguments])
    except TimeoutError:
        status = "hang"
    except BaseException:
        return _answer("traceback", out.getvalue() + traceback.format_exc())
    text = out.getvalue()
    return _answer("traceback" if "Traceback (most recent" in text else status, text)


def _answer(status: int | str, text: str) -> Answer:
    return Answer(status, text, frozenset(fold(line) for line in text.splitlines()))


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(PATIENCE))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _sentences(node: Any) -> Iterator[str]:
    """Yield the texts of a JSON document, those of one object together: a problem stands by its run."""
    if isinstance(node, dict):
        yield " ".join(value for value in node.values() if isinstance(value, str))
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        if isinstance(value, str):
            yield value
        else:
            yield from _sentences(value)
