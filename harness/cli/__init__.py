"""The command `harness`: an overview, and one module of `harness.cli.verbs` for each verb.

A module of a verb has `make_parser()`, which holds its help, and `run(arguments)`, which returns the exit
status. It is imported when the verb is called, and imports what its work needs inside `run`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from harness.cli.hydra_main import USER_ERROR, exit_status
from harness.core.errors import did_you_mean

VERBS = ("sweep", "plan", "train", "compare", "diff", "verify", "export", "sample", "watch", "stop")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. Return 0, 1 if runs failed for good, 2 for a user's mistake, 130 when interrupted."""
    name, *options = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in VERBS:
        print(f"harness {name}: no such verb; {did_you_mean(name, VERBS)}", file=sys.stderr)
        return USER_ERROR
    if "-h" in options or "--help" in options:
        print(_verb(name).make_parser().format_help(), end="")
        return 0
    sys.path.insert(0, os.getcwd())  # as `python -m` does: users' mechanisms lie in the working directory
    return exit_status(lambda: _verb(name).run(options), name)


def _verb(name: str) -> Any:
    return importlib.import_module(f"harness.cli.verbs.{name}")


def _overview() -> str:
    lines = ["Train architectures side by side at several scales, and find out which one is better.", ""]
    for name in VERBS:
        parser = _verb(name).make_parser()
        lines += [f"  {name:8} {parser.summary}", f"           $ {parser.example}"]
    return "\n".join([*lines, "", "`harness VERB --help` explains the options of a verb."])
