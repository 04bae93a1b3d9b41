"""`harness sample`: text or images from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser


def make_parser() -> VerbParser:
    """Build the parser of `harness sample`."""
    parser = VerbParser(
        "sample",
        "generate text with a language model, or a grid of images with an image model",
        'harness sample runs/attention/xs/mha/seed0 --prompt "Once upon a time" --tokens 200',
    )
    parser.add_run()
    parser.add_value("--seed", 0, "K", "seed of the draws")
    parser.add_value("--prompt", "", "TEXT", "text to continue; otherwise a new document")
    parser.add_value(
        "--tokens", 100, "N", "largest number of new tokens; the end of the document ends the text"
    )
    parser.add_value("--temperature", 1.0, "T", "0 takes the likeliest token each time; 1 draws as trained")
    parser.add_argument(
        "--to", metavar="FILE.png", help="images: otherwise samples_<step>.png in this folder"
    )
    parser.add_value("--per-label", 4, "N", "images: number of each label, in a column per label")
    parser.add_value(
        "--guidance", 2.0, "W", "images: strength of classifier-free guidance; 1 samples as trained"
    )
    parser.add_value("--steps", 50, "N", "images: number of steps from noise to image")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the text, or write the grid and print its path. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.records.run.find_checkpoint import find_checkpoint

    if "channels" in find_checkpoint(options.run).provenance.facts.shape:
        from harness.inspection.sample_images import sample_images

        grid = (options.to, options.per_label, options.guidance, options.steps, options.seed)
        print(sample_images(options.run, *grid))
        return 0
    from harness.inspection.sample_text import sample

    print(sample(options.run, options.prompt, options.tokens, options.temperature, options.seed))
    return 0
