"""`harness sweep`: train every pair of a sweep and judge it."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Sequence

from harness.cli import hydra_main
from harness.cli.verb_parser import VerbParser

DETAILS = """\
OVERRIDES as Hydra reads them: KEY=VALUE sets a key, KEY=a,b,c sweeps over it; conf/ holds the choices.
A swept key other than variant, scale and seed makes a variant of each value; the first is the control.
Finished runs are not trained again. Exit status 0 whatever the verdict, 1 if runs failed.
`harness sweep --cfg job OVERRIDES` prints the config of the first run instead."""

GC_THRESHOLD = 100_000
"""Objects between two collections: imports and configs make many objects and little garbage."""


def make_parser() -> VerbParser:
    """Build the parser of the options that are not Hydra's."""
    parser = VerbParser(
        "sweep",
        "train every pair, compare, print the verdict, write the report; repeat it to continue",
        "harness sweep experiment=attention scale=xs,s seed=0,1,2",
        DETAILS,
        takes_overrides=True,
    )
    parser.add_flag(
        "--dry-run",
        "print each run's predicted time, memory and disk, and the schedule; nothing is written or "
        "trained. engine.devices=N and engine.schedule=queue|static place the sweep on N devices",
    )
    parser.add_flag(
        "--json",
        "print the JSON of `harness compare SWEEP --json` at the end, all else to standard error",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Hand the overrides to Hydra, while the fork server imports what the launch needs. Return the exit
    status."""
    from harness.launcher.engines.local.fork_client import shared_server

    gc.set_threshold(GC_THRESHOLD)
    overrides = [argument for argument in arguments if argument not in ("--dry-run", "--json")]
    dry_run = ["engine.dry_run=true"] if "--dry-run" in arguments else []
    launches = not any(argument.startswith("-") for argument in overrides)  # --cfg and others only print
    as_json, words = "--json" in arguments, ["-m", *overrides, *dry_run]
    if as_json and (dry_run or not launches):
        make_parser().error("--json prints a verdict, and this trains nothing: use `harness plan --json`")
    with shared_server() as server:
        if launches:
            server.start()
        return _sweep_as_json(words) if as_json else hydra_main.main(words, make_parser())


def _sweep_as_json(words: Sequence[str]) -> int:
    """Run a sweep with its lines on standard error, then print its comparison, also if runs failed. Return
    the exit status."""
    from harness.cli.conclude import CONCLUDED
    from harness.cli.verbs import compare

    num_before = len(CONCLUDED)
    with contextlib.redirect_stdout(sys.stderr):
        status = hydra_main.main(words, make_parser())
    for sweep in CONCLUDED[num_before:][-1:]:
        compare.run([str(sweep.path), "--json"])
    return status
