"""Every verb of the command with its options, read from its parser."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from docs.site.markdown import code, table
from harness.cli import VERBS
from harness.cli.verb_parser import VerbParser


def command_reference() -> str:
    """Return a section of Markdown for each verb: what it does, an example, its options."""
    return "\n\n".join(_section(verb, _parser(verb)) for verb in VERBS)


def _parser(verb: str) -> VerbParser:
    return importlib.import_module(f"harness.cli.verbs.{verb}").make_parser()


def _section(verb: str, parser: VerbParser) -> str:
    """Return the section of a verb: what it does, an example, its options, and what is said around them."""
    head, *details = (parser.description or "").split("\n\n")[1:]
    parts = [f"## harness {verb}", f"{_sentence(parser.summary)}", _block(head.strip())]
    parts += map(_paragraph, details)
    parts.append(table(("option", "what it does"), _options(parser)))
    if parser.epilog:
        parts.append(_paragraph(parser.epilog))
    return "\n\n".join(filter(None, parts))


def _options(parser: VerbParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        yield code(_usage(action)), _sentence(action.help or "")


def _usage(action: argparse.Action) -> str:
    """Return an option as it is written, such as `--control VARIANT`."""
    value = (
        ""
        if action.nargs == 0
        else str(action.metavar or "|".join(map(str, action.choices or [action.dest])))
    )
    repeated = "..." if action.nargs in ("+", "*") else ""
    return f"{', '.join(action.option_strings)} {value}{repeated}".strip()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _paragraph(text: str) -> str:
    """Return a paragraph; one whose lines are indented is a table, and stays as it is."""
    return _block(text) if "\n " in text else text.replace("*", r"\*")


def _block(text: str) -> str:
    return f"```text\n{text}\n```"
