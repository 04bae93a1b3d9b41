"""Answer to a shell that completes: the parser of the verb on the line, with a completer for each value.

The shell starts the command with `_ARGCOMPLETE` in its environment (`harness completion` prints the script).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial

from argcomplete.completers import FilesCompleter
from argcomplete.finders import CompletionFinder
from argcomplete.lexers import split_line

from harness.cli.completion import record_paths
from harness.cli.verb_parser import VerbParser
from harness.config.variants.option_files import group_options, option_files, search_folders

ASKED = "_ARGCOMPLETE"
"""Environment variable with the number of words up to the command."""
Completer = Callable[..., Sequence[str]]


def complete(verbs: Sequence[str], find_parser: Callable[[str], VerbParser]) -> None:
    """Print the completions of the line in the environment for the shell, and end the process."""
    *_, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    words = words[int(os.environ[ASKED]) - 1 :]
    verb = next(iter(words[1:]), "")
    if verb in verbs:
        parser: argparse.ArgumentParser = _with_completers(find_parser(verb), verbs, words[2:])
        os.environ[ASKED] = str(int(os.environ[ASKED]) + 1)  # the parser sees the words behind the verb
    else:
        parser = _overview_parser(verbs, is_help=verb == "help")
    CompletionFinder()(parser, always_complete_options=False)


def _overview_parser(verbs: Sequence[str], is_help: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("harness", add_help=False)
    parser.add_argument("verb", choices=[*verbs, "help"])
    if is_help:
        parser.add_argument("of", choices=verbs)
    for option in ("--help", "--version"):
        parser.add_argument(option, action="store_true")
    return parser


def _with_completers(
    parser: VerbParser, verbs: Sequence[str], words: Sequence[str]
) -> argparse.ArgumentParser:
    """Give each value a completer by its name in the help, and the parser its overrides and `--help`."""
    overrides = partial(_overrides, words)
    completers: dict[str, Completer] = {
        "SWEEP": record_paths.sweeps,
        "RUN": record_paths.runs,
        "RUN[@STEP]": record_paths.runs,
        "WORDS": overrides,
        "WORD": lambda **_: group_options("question", words),
        "VARIANT": lambda **_: group_options("variant", words),
        "GROUP": lambda **_: ["sweeps", *option_files(search_folders(words))],
        "VERB": lambda **_: verbs,
    }
    parser.add_flag("--help", "print the options")
    if parser.takes_overrides and not any(action.metavar == "WORDS" for action in parser.actions):
        parser.add_argument("overrides", nargs="*", metavar="WORDS")
    for action in parser.actions:
        if (completer := completers.get(str(action.metavar))) is not None and action.choices is None:
            action.completer = completer  # pyright: ignore[reportAttributeAccessIssue]
    return parser


def _overrides(words: Sequence[str], prefix: str, **_: object) -> list[str]:
    """Complete an override, and in the value of a key that names a file its path."""
    from harness.cli.completion import override_words  # the schema takes a tenth of a second to import

    key, equals, value = prefix.partition("=")
    if equals and override_words.names_file(key):
        return [f"{key}={path}" for path in FilesCompleter()(value)]
    return override_words.completions(prefix, words)
