"""`harness mirror`: send the records of a sweep to trackers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.verb_parser import VerbParser

if TYPE_CHECKING:
    from harness.records.paths import SweepDir

DETAILS = """\
It sends what a tracker lacks, of a sweep that is finished or at work, and can be repeated: nothing is sent
twice. OVERRIDES are keys of the tracker, such as tracker.wandb.mode=online; without any, the sweep is sent
to where it was sent before. Exit status 1 if not everything was sent."""


def make_parser() -> VerbParser:
    """Build the parser of `harness mirror`."""
    parser = VerbParser(
        "mirror",
        "send the curves and the verdict of a sweep to W&B, TensorBoard, trackio or MLflow",
        "harness mirror runs/attention --to wandb",
        DETAILS,
        uses_jax=False,
    )
    parser.add("sweep", "SWEEP", "directory of a sweep")
    parser.add("overrides", "OVERRIDES", "keys of the trackers, as for `harness sweep`", nargs="*")
    help = "tracker: tensorboard, wandb, trackio or mlflow; may be repeated"
    parser.add_argument("--to", metavar="TRACKER", action="append", required=True, help=help)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Send the sweep and print what each tracker got. Return the exit status."""
    parser = make_parser()
    options = parser.parse_intermixed_args(arguments)
    if foreign := [word for word in options.overrides if not word.startswith("tracker.")]:
        parser.error(f"{foreign[0]} is no key of a tracker, such as tracker.wandb.mode=online")
    from harness.config.compose import compose
    from harness.records.sweep.find_sweep import find_sweep
    from harness.trackers.known_trackers import check_trackers
    from harness.trackers.mirror_processes import SweepMirrors

    sweep = find_sweep(options.sweep)
    overrides = options.overrides or _stored_overrides(sweep, options.to)
    config = compose([f"tracker=[{','.join(options.to)}]", *overrides]).tracker
    check_trackers(config)
    mirrors = SweepMirrors(config, print, is_beside_training=False)
    mirrors.start(sweep)
    return 0 if mirrors.finish() else 1


def _stored_overrides(sweep: SweepDir, trackers: Sequence[str]) -> list[str]:
    """Return the settings under which the trackers were sent the sweep before, as overrides."""
    from harness.trackers.sent_runs import stored_settings

    return [
        f"tracker.{tracker}.{key}={json.dumps(value)}"
        for tracker in trackers
        for key, value in (stored_settings(sweep, tracker) or {}).items()
    ]
