"""Why a worker ended, in one sentence that says where its log is."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from harness.launcher.engines.engine_api import Exit, Order
from harness.launcher.engines.grouped_processes import log_of

LONGEST = 300
"""Characters that are quoted; a log holds the rest."""
_TELLING = re.compile(r"^[\w.]*(error|exception)\b|\b(error:|fatal|check failed|killed)", re.IGNORECASE)
"""What Python, XLA, a shell and Slurm's commands say before they end; hints and stack traces come after."""


def spoken(order: Order) -> dict[Path, int]:
    """Bytes in the logs of a worker's processes: what an earlier one said there explains no later end."""
    logs = [log_of(order, index) for index in range(order.processes)]
    return {log: log.stat().st_size for log in logs if log.exists()}


def explained(order: Order, end: Exit, before: Mapping[Path, int]) -> str:
    """The words of an end, and what the scheduler, or else the worker, said last. `before`: as `spoken` had
    it when the worker was started. Where nobody knows a status, the words alone explain it."""
    log = log_of(order, end.process)
    said = _since(log, before.get(log, 0))
    quoted = end.said or ("" if end.code is None else telling(said, whatever=(end.code or 0) > 0))
    words = f"{end.words}: {quoted[:LONGEST]}" if quoted else end.words
    if end.code is None:
        return words
    return f"{words} (see {log})" if said else f"{words} (nothing in {log})"


def telling(text: str, *, whatever: bool = True) -> str:
    """The line that says why; else the last one, where `whatever` was said last must do. Empty for none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if _TELLING.search(line)] or (lines if whatever else [])
    return found[-1] if found else ""


def _since(log: Path, size: int) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode(errors="replace").strip()


def in_words(code: int) -> str:
    if code >= 0:
        return f"the worker ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker was ended by signal {-code}"
