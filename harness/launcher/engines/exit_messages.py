"""Messages that say why a worker ended and where its log is."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from harness.launcher.engines.engine_api import Exit, WorkerSpec
from harness.launcher.engines.grouped_processes import process_log

MAX_QUOTED_CHARACTERS = 300
"""Number of characters that are quoted from a log."""
_ERROR_LINE = re.compile(r"^[\w.]*(error|exception)\b|\b(error:|fatal|check failed|killed)", re.IGNORECASE)
"""Pattern of the error lines of Python, XLA, shells and Slurm. Hints and stack traces follow these lines."""


def log_sizes(spec: WorkerSpec) -> dict[Path, int]:
    """Return the bytes in each process's log. Older output does not explain a later exit."""
    logs = [process_log(spec, index) for index in range(spec.processes)]
    return {log: log.stat().st_size for log in logs if log.exists()}


def exit_message(spec: WorkerSpec, end: Exit, log_sizes_before: Mapping[Path, int]) -> str:
    """Build the exit message: the reason, then the last relevant line of the scheduler's or worker's log.
    `log_sizes_before`: the result of `log_sizes` when the worker was started."""
    log = process_log(spec, end.process)
    output = _read_from(log, log_sizes_before.get(log, 0))
    reason = end.scheduler_message
    if not reason and end.code is not None:
        reason = last_error_line(output, any_line=end.code > 0)
    message = f"{end.message}: {reason[:MAX_QUOTED_CHARACTERS]}" if reason else end.message
    if end.code is None:
        return message
    return f"{message} (see {log})" if output else f"{message} (nothing in {log})"


def last_error_line(text: str, *, any_line: bool = True) -> str:
    """Return the last line that names an error; without one, the last line if `any_line`, else ''."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [line for line in lines if _ERROR_LINE.search(line)] or (lines if any_line else [])
    return matches[-1] if matches else ""


def _read_from(log: Path, size: int) -> str:
    """Return what was written to `log` after its first `size` bytes."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode(errors="replace").strip()


def exit_code_text(code: int) -> str:
    """Describe an exit status; a negative one is a signal."""
    if code >= 0:
        return f"the worker ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker was ended by signal {-code}"
