"""The argument parser of every verb."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from harness.core.errors import UserError

RENAMED_OPTIONS = {
    ("plan", "--layers"): "--compile",
    ("plan", "--calibrate"): "--accuracy",
    ("sample", "--each"): "--per-label",
}
"""Options of a verb that got another name."""


class VerbParser(argparse.ArgumentParser):
    """Parser that answers a mistake with one sentence (UserError)."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse, after naming the new option for one that was renamed. Raises UserError."""
        for (verb, old), new in RENAMED_OPTIONS.items():
            if self.prog == f"harness {verb}" and any(word.split("=")[0] == old for word in args or ()):
                self.error(f"{old} was renamed: write {new}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` shows an example")
