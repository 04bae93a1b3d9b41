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
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="seed of the draws (%(default)s)")
    text = parser.add_argument_group("text")
    text.add_argument(
        "--prompt", default="", metavar="TEXT", help="text to continue; otherwise a new document"
    )
    text.add_argument(
        "--tokens",
        type=int,
        default=100,
        metavar="N",
        help="largest number of new tokens (%(default)s); generation stops where the document ends",
    )
    text.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="0 takes the likeliest token each time; 1 (the default) draws as trained",
    )
    images = parser.add_argument_group("images: a grid with one column per label")
    images.add_argument("--to", metavar="FILE.png", help="otherwise samples_<step>.png in the current folder")
    images.add_argument(
        "--per-label", type=int, default=4, metavar="N", help="images of each label (%(default)s)"
    )
    images.add_argument(
        "--guidance",
        type=float,
        default=2.0,
        metavar="W",
        help="strength of classifier-free guidance towards the label; 1 samples as trained (%(default)g)",
    )
    images.add_argument(
        "--steps", type=int, default=50, metavar="N", help="steps from noise to image (%(default)s)"
    )
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
