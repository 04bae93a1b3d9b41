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

from harness.cli.exit_status import exit_status
from harness.core.errors import UserError, did_you_mean

VERBS = (
    "sweep", "plan", "train", "compare", "diff", "verify", "export", "sample", "watch", "stop", "mirror",
    "tokenize", "cache", "questions", "list", "init", "completion", "guide",
)  # fmt: skip
SUMMARY = "Train architectures side by side at several scales, and find out which one is better."
FIRST_DAY = {
    "harness sweep experiment=attention scale=xs seed=0,1": "train six small models: a first comparison",
    "harness init mine --text FILE.jsonl": "write a project of your own, on your own text, that runs",
    "harness compare runs/attention --html": "print the verdict again, and write the report",
}
"""Commands of a first day, with what each does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. Return 0, 1 if runs failed for good, 2 for a user's mistake, 130 when interrupted, and 141
    if the reader of the output has left."""
    if arguments is None and "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        from harness.cli.completion.complete import complete

        complete(VERBS, lambda verb: find_verb(verb).make_parser())
    name, *options = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    return exit_status(lambda: _run(name, options), name)


def _run(name: str, options: Sequence[str]) -> int:
    if not name:
        print(_first_day())
    elif name in ("-h", "--help", "help"):
        print(_help(next(iter(options), "")))
    elif name in ("-V", "--version"):
        from importlib.metadata import version

        print(f"ab-harness {version('ab-harness')}")
    elif "-h" in options or "--help" in options:
        print(_help(name))
    else:
        verb = find_verb(name)
        _check_working_folder()
        _prepare(verb.make_parser().uses_jax)
        return verb.run(options)
    return 0


def _help(name: str) -> str:
    return find_verb(name).make_parser().format_help().rstrip("\n") if name else _overview()


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("The current folder was deleted. Change to one that exists.") from None


def _prepare(uses_jax: bool) -> None:
    """Keep new files open to their owner, leave out of this process and its children what the shell says of
    JAX's options, and say what was not tried. Raises UserError for a JAX that is too old, if it is used."""
    from harness.core.atomic_files import keep_own_access
    from harness.core.jax_setup.jax_range import check_jax_version, newer_jax_note
    from harness.core.jax_setup.jax_variables import drop_jax_options

    keep_own_access()
    dropped = drop_jax_options()
    if not uses_jax:
        return
    check_jax_version()
    if note := newer_jax_note():
        print(note, file=sys.stderr)
    if dropped:
        is_or_are = "is" if len(dropped) == 1 else "are"
        print(f"{', '.join(dropped)} {is_or_are} not used: a run sets JAX's options itself.", file=sys.stderr)


def find_verb(name: str) -> Any:
    """Return the module of a verb. Raises UserError, with the nearest, if there is none."""
    if name not in VERBS:
        raise UserError(f"harness {name}: no such verb; {did_you_mean(name, VERBS)}")
    return importlib.import_module(f"harness.cli.verbs.{name}")


def _first_day() -> str:
    lines = [SUMMARY, ""]
    for command, purpose in FIRST_DAY.items():
        lines += [f"  $ {command}", f"      {purpose}"]
    lines += ["", "`harness --help` lists all verbs, `harness list` what there is to choose from."]
    return "\n".join(lines)


def _overview() -> str:
    lines = [SUMMARY, ""]
    for name in VERBS:
        parser = find_verb(name).make_parser()
        lines += [f"  {name:9} {parser.summary}", f"            $ {parser.example}"]
    lines += [
        "", "`harness VERB --help` explains the options of a verb; `harness --version` is the version.",
        'For completion with TAB: eval "$(harness completion bash)" in ~/.bashrc, and so for zsh and fish.',
    ]  # fmt: skip
    return "\n".join(lines)
