"""`harness init`: write a project of one's own, which runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.cli.verb_parser import VerbParser

COMMAND = "harness sweep experiment=mine 'hydra.searchpath=[file://conf]'"


def make_parser() -> VerbParser:
    """Build the parser of `harness init`."""
    parser = VerbParser(
        "init",
        "write a project of your own: text, mechanism, variant and question, which run at once",
        "harness init mine",
        uses_jax=False,
    )
    parser.add("folder", "DIR", "folder of the project, new or empty")
    text = "your text: .jsonl, .txt or .parquet, a folder, a URL; otherwise prose of the harness"
    parser.add("--text", "PATH", text)
    column = "column of the texts in JSONL and Parquet files (default text, or else the longest)"
    parser.add("--column", "NAME", column)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Write the project, and print its files and the commands that run it. Return the exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    from harness.cli.new_project.text_file import PACKED_TEXT, TEXT_COLUMN, read_text
    from harness.cli.new_project.write_project import write_project

    if options.column and options.text is None:
        parser.error("--column goes with --text")
    text = PACKED_TEXT if options.text is None else read_text(options.text, options.column)
    files = write_project(Path(options.folder), text)
    print(f"{options.folder} has", *(f"  {file}" for file in files), sep="\n")
    if text.column != TEXT_COLUMN:
        print(f"The texts are those of the column {text.column} (conf/data/mine.yaml).")
    print("Train twelve small runs and read the verdict, in a minute or two:")
    print(f"  cd {shlex.quote(options.folder)}", f"  {COMMAND}", sep="\n")
    return 0
