"""`harness verify`: replay part of a run and check that it is bitwise identical, or compare data."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser

NOTES = """\
The loss, gradient norm and learning rate of each step are compared bit by bit with the curve on disk, and so
are the evaluations recorded at these steps. At a checkpoint the whole state and the examples read so far are
compared too. Programs are compiled afresh. Nothing is written into the run. What differs between this
environment and the recorded one is named.
With --data nothing is replayed: the checksum of every shard of tokens and the hash of every file of the data
are compared with what was recorded. A damaged shard is removed, and built again at the next start.
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
    parser.add("run", "RUN[@STEP]", f"directory of a run or a branch, replayed from {start}", nargs="?")
    parser.add("--steps", "N", "number of steps; otherwise up to the next checkpoint", type=int)
    parser.add_flag("--cached", "take compiled programs from the cache, which is faster and proves less")
    of_data = "compare the data of a sweep, of a run, or of overrides as for `harness sweep`, byte by byte"
    parser.add("--data", "WORDS", of_data, nargs="*")
    parser.add_flag("--json", "print the result as JSON")
    parser.add_trust()
    return parser


def run(arguments: Sequence[str]) -> int:
    """Replay, or compare data, and print the result. Return 0 if all bits are equal, otherwise 1."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.data is not None:
        if options.run is not None:
            options.data.insert(0, options.run)
        return _verify_data(options.data, as_json=options.json)
    if options.run is None:
        parser.error("the following arguments are required: RUN[@STEP]")
    from harness.cli.views.replay import replay_text
    from harness.inspection.replay.verify import verify

    replay = verify(options.run, options.steps, trust=options.trust, cached=options.cached)
    print(replay_text(replay, as_json=options.json))
    return 0 if replay.same else 1


def _verify_data(words: Sequence[str], *, as_json: bool) -> int:
    from harness.cli.views.data_checks import data_checks_text
    from harness.cli.views.progress_line import ProgressLine
    from harness.inspection.data_records import data_records
    from harness.inspection.verify_data import verify_data

    with ProgressLine() as line:
        checks = verify_data(data_records(words), line.show)
    print(data_checks_text(checks, as_json=as_json))
    return 1 if any(check.problems for check in checks) else 0
