"""`harness train`: train one run in this process."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli import hydra_main
from harness.cli.verb_parser import VerbParser


def make_parser() -> VerbParser:
    """Build the parser, which has no options beside Hydra's."""
    return VerbParser(
        "train",
        "train one run in this process",
        "harness train variant=hybrid scale=xs seed=1",
        "The run is written to runs/<experiment_name>/<scale>/<variant>/seed<k>; repeat to continue it.",
        takes_overrides=True,
    )


def run(arguments: Sequence[str]) -> int:
    """Hand the overrides to Hydra. Return the exit status."""
    return hydra_main.main(["hydra.mode=RUN", *arguments], make_parser())
