"""A sweep started from Python, with its progress, and opened at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.api.child_command import CommandInterrupted, check_overrides, run_command
from harness.api.progress_display import ProgressDisplay, make_display
from harness.core.errors import UserError
from harness.report.open_sweep import OpenedSweep, open_sweep

SWEEP_LINE = re.compile(
    r"(?P<path>.+): (?:\d+ runs?; .*|all \d+ runs were finished before.*|its run was finished before.*)"
)
"""First line of a sweep's output, which begins with its path."""


def sweep(overrides: Sequence[str]) -> OpenedSweep:
    """Train every pair of a sweep, or what is left of it, and return it with its verdict.

    overrides: those of `harness sweep`, such as `["experiment=attention", "scale=xs"]`. The runs train in
    processes of their own; a notebook shows their progress, anything else prints a line now and then.
    Raises UserError with the sentence of the command if it refuses the sweep or if runs failed. Raises
    KeyboardInterrupt once every run has saved, after an interruption; the same call continues the sweep.
    """
    words = check_overrides("harness.sweep", overrides)
    output = SweepOutput(make_display())
    try:
        run_command(["sweep", *words], output.take_line, output.display.refresh)
    except CommandInterrupted as error:
        output.display.close("stopped")
        raise CommandInterrupted(str(error)) from None
    except UserError as error:
        output.display.close("not finished")
        raise _with_path(error, output.path) from None
    except BaseException:
        output.display.close("not finished")
        raise
    output.display.close("finished")
    if output.path is None:
        raise RuntimeError("harness sweep ended without naming the folder of its sweep")
    return open_sweep(output.path)


@dataclass
class SweepOutput:
    """Output of a sweep until its runs have ended. The verdict that follows it is not shown twice."""

    display: ProgressDisplay
    path: str | None = None
    """Folder of the sweep, once it is named."""
    _training: bool = field(default=True, init=False)

    def take_line(self, line: str) -> None:
        """Show a line. The first blank one after the sweep's own ends them: the verdict follows."""
        if match := SWEEP_LINE.fullmatch(line):
            self.path, self._training = match["path"], True
            self.display.follow(match["path"])
        elif not line and self.path:
            self._training = False
        if self._training:
            self.display.show(line)


def _with_path(error: UserError, path: str | None) -> UserError:
    """Return the error, with a note on how to read the runs that have ended if the sweep has begun."""
    if path is not None:
        error.add_note(f"harness.open_sweep({path!r}) reads the runs that have ended.")
    return error
