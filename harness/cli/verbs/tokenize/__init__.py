"""`harness tokenize`: tokenise text apart from a sweep, here or through the engines."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser

DETAILS = """\
WORDS are paths (a file, a folder, a URL, pack:NAME) or overrides as for `harness sweep`, whose texts and
validation sets are all tokenised. A sweep with the same text, tokenizer and held-out share finds the tokens
in the cache folder. What is there already is kept: repeat the command to continue it.
With engine=slurm or engine=ray, tasks on a cache folder that every node sees share the work."""
NOTES = """\
engine=slurm takes the options of engine.slurm (partition, time_limit, extra, ...), engine=ray those of
engine.ray. Exit status 0 if all is tokenised, 1 if a task gave up."""


def make_parser() -> VerbParser:
    """Build the parser of the options that are not overrides."""
    parser = VerbParser(
        "tokenize",
        "tokenise text into the cache, with all cores or as tasks of Slurm or Ray",
        "harness tokenize pack:prose --tokenizer byte",
        DETAILS,
        NOTES,
        uses_jax=False,
        takes_overrides=True,
    )
    parser.add("words", "WORDS", "paths, or overrides; overrides may follow paths", nargs="*")
    parser.add("--tokenizer", "NAME", "data.tokenizer: byte, bpe512, or the path of a tokenizer.json")
    parser.add("--column", "NAME", "column of the texts of the paths, in JSONL and Parquet files")
    parser.add("--holdout", "SHARE", "data.holdout: share of the documents that is held out", type=float)
    parser.add("--processes", "N", "processes here, or CPUs and processes of each task", type=int)
    parser.add("--memory", "SIZE", "memory of all processes together, here or of each task, such as 1GiB")
    parser.add("--tasks", "N", "tasks of engine=slurm or engine=ray (default 4)", type=int)
    parser.add_flag("--no-wait", "submit the tasks and leave; the same command shows how far they are")
    parser.add_flag("--json", "print the result as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Tokenise, and print what there is. Return the exit status."""
    options = make_parser().parse_intermixed_args([*arguments])
    from harness.cli.verbs.tokenize.make_tokens import make_tokens

    return make_tokens(options)
