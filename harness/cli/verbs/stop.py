"""`harness stop`: stop a sweep so that it can be continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.cli.verb_parser import VerbParser


def make_parser() -> VerbParser:
    """Build the parser of `harness stop`."""
    parser = VerbParser(
        "stop",
        "stop a sweep: every run saves a checkpoint and exits; the sweep command continues it",
        "harness stop runs/attention",
        uses_jax=False,
    )
    parser.add("sweep", "SWEEP", "directory of a sweep")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Ask all runs to stop and print what was asked. Return the exit status."""
    path = make_parser().parse_args(arguments).sweep
    from harness.launcher.stages.stop_sweep import stop_sweep
    from harness.records.paths import SweepDir
    from harness.records.run.run_lock import owner
    from harness.records.sweep.find_sweep import find_sweep

    tuning = SweepDir(Path(path)).tune  # its driver has not begun the sweep itself
    print(stop_sweep(tuning if owner(tuning.driver_lock) else find_sweep(path), print))
    return 0
