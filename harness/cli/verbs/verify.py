"""`harness verify`: replay part of a run and check that it is bitwise identical."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser

NOTES = """\
The loss, gradient norm and learning rate of each step are compared bit by bit with the curve on disk, and so
are the evaluations recorded at these steps. At a checkpoint the whole state and the examples read so far are
compared too. Programs are compiled afresh. Nothing is written into the run. What differs between this
environment and the recorded one is named.
Exit status 0 if all are equal, 1 if not."""


def make_parser() -> VerbParser:
    """Build the parser of `harness verify`."""
    parser = VerbParser(
        "verify",
        "replay part of a run and check that it is bitwise identical",
        "harness verify runs/attention/xs/mha/seed0@100",
        notes=NOTES,
    )
    start = (
        "its checkpoint at that step, or its start (@0); without a step the last but one checkpoint, or an "
        "earlier one if no evaluation follows that"
    )
    parser.add("run", "RUN[@STEP]", f"directory of a run or a branch, replayed from {start}")
    parser.add("--steps", "N", "number of steps; otherwise up to the next checkpoint", type=int)
    parser.add_flag("--cached", "take compiled programs from the cache, which is faster and proves less")
    parser.add_flag("--json", "print the result as JSON")
    parser.add_trust()
    return parser


def run(arguments: Sequence[str]) -> int:
    """Replay and print the result. Return 0 if all bits are equal, otherwise 1."""
    options = make_parser().parse_args(arguments)
    from harness.cli.views.replay import replay_text
    from harness.inspection.replay.verify import verify

    replay = verify(options.run, options.steps, trust=options.trust, cached=options.cached)
    print(replay_text(replay, as_json=options.json))
    return 0 if replay.same else 1
