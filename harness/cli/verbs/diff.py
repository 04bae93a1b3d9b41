"""`harness diff`: compare two checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.cli.json_output.json_text import json_text
from harness.cli.verb_parser import RUN_HELP, VerbParser


def make_parser() -> VerbParser:
    """Build the parser of `harness diff`."""
    parser = VerbParser(
        "diff",
        "compare two checkpoints: weights, next-token distributions, loss of each held-out sequence",
        "harness diff runs/attention/xs/mha/seed0 runs/attention/xs/hybrid/seed0@100",
    )
    parser.add("runs", "RUN[@STEP]", RUN_HELP, nargs=2)
    parser.add_flag("--json", "print the whole comparison as JSON")
    parser.add_flag("--pictures", "write pictures/diff_*.png and *.svg into the sweep of the first run")
    parser.add_trust()
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the comparison; print the paths of pictures to standard error. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.inspection.diff.diff_checkpoints import diff, picture_folder

    comparison = diff(*options.runs, trust=options.trust)
    if options.json:
        print(json_text("diff", comparison))
    else:
        from rich.console import Console

        from harness.report.checkpoint_diff import print_diff

        print_diff(comparison, Console())
    if options.pictures:
        from harness.report.checkpoint_diff import write_diff_pictures

        for picture in write_diff_pictures(comparison, picture_folder(options.runs[0])):
            print(picture, file=sys.stderr)
    return 0
