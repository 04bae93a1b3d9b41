"""The command `harness` as a child process: its lines as they come, its error, and its interruption.

A process of its own keeps JAX and Hydra, both with state of a whole process, out of the caller's.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

from harness.core.errors import UserError

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
FAILURES = (1, 2)
"""Exit statuses of a command whose last line of errors is a sentence for the user."""
TERMINAL_VARIABLES = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
"""Variables with which a notebook asks for the escapes of a terminal."""
POLL_SECONDS = 1.0
"""Seconds between two calls of `on_wait`, at most."""


class CommandInterrupted(KeyboardInterrupt):
    """Interruption of a command that has ended in order. A notebook shows its sentence, no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


def check_overrides(call: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides as a list. Raises UserError for a text in place of a list, and for options."""
    if isinstance(overrides, str):
        raise UserError(f"{call}({overrides!r}): give a list of overrides, such as {overrides.split()!r}")
    words = [str(word) for word in overrides]
    for word in words:
        if word.startswith("-"):
            hint = "harness.plan predicts without training" if word == "--dry-run" else "give KEY=VALUE"
            raise UserError(f"{call}: {word} is an option of the command, not an override; {hint}")
    return words


def run_command(
    words: Sequence[str], on_line: Callable[[str], None], on_wait: Callable[[], None] = lambda: None
) -> None:
    """Run `harness WORDS` to its end. `on_line` gets each line of its output, `on_wait` a call a second.

    Raises UserError with the command's own sentence if it is refused or runs failed, CommandInterrupted after
    a Ctrl-C that the command obeyed, and RuntimeError if it ended in another way.
    """
    process = _start(words)
    errors: list[str] = []
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    readers = [_reader(process.stdout, lines.put), _reader(process.stderr, errors.append)]
    waiter = threading.Thread(target=_wait_for, args=(readers, lines), daemon=True)
    waiter.start()
    interruptions = 0
    while True:
        try:
            if _take_line(lines, on_line, on_wait):
                break
        except KeyboardInterrupt:
            interruptions += 1
            process.send_signal(signal.SIGINT)
    _raise_error(words, process.wait(), errors, was_interrupted=interruptions > 0)


def _start(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command in a session of its own: an interruption reaches it once, from here."""
    env = {name: value for name, value in os.environ.items() if name not in TERMINAL_VARIABLES}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness", *words],
        env=env | {"PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _reader(stream: IO[str] | None, put: Callable[[str], None]) -> threading.Thread:
    """Return a started thread that reads the lines of a stream."""

    def read() -> None:
        for line in stream or ():
            put(line.rstrip("\n"))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _wait_for(readers: Sequence[threading.Thread], lines: queue.SimpleQueue[str | None]) -> None:
    for reader in readers:
        reader.join()
    lines.put(None)


def _take_line(
    lines: queue.SimpleQueue[str | None], on_line: Callable[[str], None], on_wait: Callable[[], None]
) -> bool:
    """Hand on the next line, or none after a second. Return True after the last one."""
    try:
        line = lines.get(timeout=POLL_SECONDS)
    except queue.Empty:
        line = ""
    else:
        if line is None:
            return True
        on_line(line)
    on_wait()
    return False


def _raise_error(words: Sequence[str], status: int, errors: Sequence[str], *, was_interrupted: bool) -> None:
    sentences = [line for line in errors if line.strip()]
    if status == INTERRUPTED or (was_interrupted and status):
        raise CommandInterrupted("Stopped. The same call continues.") from None
    if status in FAILURES and sentences and not any(map(_is_traceback, sentences)):
        raise UserError(sentences[-1])
    if status:
        text = "\n".join(["", *errors[-20:]])
        raise RuntimeError(f"harness {words[0]} ended with status {status}:{text}")


def _is_traceback(line: str) -> bool:
    return line.startswith("Traceback (most recent call last)")
