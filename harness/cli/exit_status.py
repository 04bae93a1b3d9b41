"""Exit statuses of the command, and how an error or an interruption becomes one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from harness.cli.plain_signs import print_plain_signs
from harness.core.errors import UserError, cause_chain, disk_error

FAILED, USER_ERROR, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
"""The last two are 128 and the number of the signal that ends other tools: SIGINT and SIGPIPE."""


def exit_status(call: Callable[[], int], place: str) -> int:
    """Return what `call` returns. Print a UserError, or an error of the disk at `place`, and return 2. Return
    130 on Ctrl-C, and 141 without a word if the reader of the output has left, as after `| head`."""
    try:
        return _explained_status(call, place)
    except (BrokenPipeError, SystemExit) as error:  # rich turns the one into the other
        if not _has_cause(error, BrokenPipeError):
            raise
        _discard_unread_output()
        return BROKEN_PIPE


def _explained_status(call: Callable[[], int], place: str) -> int:
    try:
        print_plain_signs()
        status = call()
        if sys.stdout:
            sys.stdout.flush()  # a missing reader has to be noticed here
        return status
    except BaseException as error:
        if _has_cause(error, KeyboardInterrupt):  # a library may raise another error on its way out
            status, message = INTERRUPTED, "Stopped."
        else:
            status, message = USER_ERROR, disk_error(error, place) if isinstance(error, OSError) else error
        if status == USER_ERROR and not isinstance(message, UserError):
            raise
    print(message, file=sys.stderr)
    return status


def _has_cause(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in cause_chain(error))


def _discard_unread_output() -> None:
    """Point streams without a reader at the null device, since Python flushes them once more as it exits."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
