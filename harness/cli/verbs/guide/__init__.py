"""`harness guide`: the page for scripts and coding agents, and the schemas of JSON outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cli.json_output.json_text import VERSIONS, schema_text
from harness.cli.verb_parser import VerbParser

PAGE = Path(__file__).with_name("guide.md")


def make_parser() -> VerbParser:
    """Build the parser of `harness guide`."""
    parser = VerbParser(
        "guide",
        "print how a script or a coding agent puts a question and reads the verdict",
        "harness guide",
        uses_jax=False,
    )
    schema = f"print the JSON schema of an output instead: {', '.join(VERSIONS)}"
    parser.add("--schema", "OUTPUT", schema)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the page or a schema. Return the exit status."""
    options = make_parser().parse_args(arguments)
    text = PAGE.read_text() if options.schema is None else schema_text(options.schema)
    print(text, end="")
    return 0
