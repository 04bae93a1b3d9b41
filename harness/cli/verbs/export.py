"""`harness export`: write the weights of a run for other tools."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import RUN_HELP, VerbParser


def make_parser() -> VerbParser:
    """Build the parser of `harness export`."""
    parser = VerbParser(
        "export",
        "write the weights of a run for other tools",
        "harness export runs/attention/xs/mha/seed0@100 --to hf exported/mha",
    )
    parser.add("run", "RUN[@STEP]", RUN_HELP)
    layout = "Llama's layout, or Qwen3's with model.qk_norm, in float32, with the tokenizer"
    help = f"`hf` and a new folder for `transformers`: {layout} unless the run reads bytes"
    parser.add_argument("--to", nargs=2, required=True, metavar=("FORMAT", "DIR"), help=help)
    parser.add_trust()
    return parser


def run(arguments: Sequence[str]) -> int:
    """Write the weights and print where they are. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.inspection.export_hf import export

    print(export(options.run, *options.to, trust=options.trust))
    return 0
