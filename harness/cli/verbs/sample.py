"""`harness sample`: text or images from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import RUN_HELP, VerbParser
from harness.core.errors import printable


def make_parser() -> VerbParser:
    """Build the parser of `harness sample`."""
    parser = VerbParser(
        "sample",
        "generate text with a language model, or a grid of images with an image model",
        'harness sample runs/attention/xs/mha/seed0 --prompt "Once upon a time" --tokens 200',
    )
    parser.add("run", "RUN[@STEP]", RUN_HELP)
    parser.add("--seed", "K", "seed of the draws", type=int, default=0)
    parser.add("--prompt", "TEXT", "text to continue; otherwise a new document", default="")
    parser.add("--tokens", "N", "largest number of new tokens; the end of the document ends it", default=100)
    parser.add("--temperature", "T", "0 takes the likeliest token; 1 draws as trained", default=1.0)
    parser.add("--to", "FILE.png", "images: otherwise samples_<step>.png in the current folder")
    parser.add("--per-label", "N", "images: number of each label, in a column per label", default=4)
    parser.add("--guidance", "W", "images: classifier-free guidance; 1 samples as trained", default=2.0)
    parser.add("--steps", "N", "images: number of steps from noise to image", default=50)
    parser.add_trust()
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the text, or write the grid and print its path. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.records.run.find_checkpoint import find_checkpoint

    if find_checkpoint(options.run).provenance.facts.has_images:
        from harness.inspection.sample_images import sample_images

        grid = (options.to, options.per_label, options.guidance, options.steps, options.seed)
        print(sample_images(options.run, *grid, trust=options.trust))
        return 0
    from harness.inspection.sample_text import sample

    drawing = (options.prompt, options.tokens, options.temperature, options.seed)
    print(printable(sample(options.run, *drawing, trust=options.trust)))
    return 0
