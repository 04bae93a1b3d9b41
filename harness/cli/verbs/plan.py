"""`harness plan`: predict what a sweep takes, on this machine or on a cluster that is described."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser

DETAILS = """\
OVERRIDES as for `harness sweep`. Prints the parameters, memory, layout and time of each run and the evidence
for each number, whether the cluster can feed all runs together, and the smallest effect that the design can
detect. Keys that only a plan has:
  cluster=NAME        chips, links, failures and power from conf/cluster/NAME.yaml; otherwise this machine,
                      scheduled as by `harness sweep --dry-run`
  roster=frontier     sizes that can be planned but not trained
  evidence=RUNS       a finished sweep of pairs (at least 2 seeds a scale): which variant to bet on for
                      runs without a paired variant, and how far they lie beyond it"""


def make_parser() -> VerbParser:
    """Build the parser of the options that are not overrides."""
    parser = VerbParser(
        "plan",
        "predict what a sweep takes, on this machine or on a cluster that is described; trains nothing",
        "harness plan experiment=colossus2 roster=frontier cluster=colossus2",
        DETAILS,
        takes_overrides=True,
    )
    parser.add_flag("--layouts", "print the layouts that were not chosen too, and why")
    targets = "abstract (lowered on a mesh of any size), cpu (compiled for simulated devices), cuda, tpu (by "
    targets += "their own compilers: make plan-extras), or several of these with commas"
    parser.add("--compile", "TARGETS", f"compile each run's step without its devices: {targets}")
    parser.add_flag("--json", "print the plan as JSON: runs, cluster, power, bets, layers")
    files = "SWEEP/report.html with the plan, and SWEEP/plan.json, from which later reports show the plan"
    parser.add_flag("--html", f"write {files}; otherwise nothing is written")
    parser.add_flag("--pictures", "write SWEEP/plan.json and SWEEP/pictures/plan_*.png and *.svg")
    accuracy = "how accurate the predicted step times of this machine's runs were, and how plans correct them"
    published = "with a file, the accuracy for published runs, each predicted without its source"
    parser.add("--accuracy", "ROWS.csv", f"without OVERRIDES: {accuracy}; {published}", nargs="?", const="")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the plan, or the accuracy of earlier ones. Return the exit status."""
    options, overrides = _parse_options(arguments)
    if options.accuracy is not None:
        from harness.cli.plan_accuracy import report_accuracy

        report_accuracy(options.accuracy, as_json=options.json)
    else:
        from harness.launcher.engines.local.fork_client import shared_server

        with shared_server() as server:
            server.start()
            from harness.cli.make_plan import make_plan  # polars, rich, the planner: a second to import

            make_plan(options, overrides)
    return 0


def _parse_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the overrides between them."""
    parser = make_parser()
    options, overrides = parser.parse_known_args(arguments)
    if flags := [word for word in overrides if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {flags[0]}")
    flags = [f"--{name}" for name in ("layouts", "html", "pictures") if getattr(options, name)]
    if options.accuracy is not None and (overrides or flags):
        parser.error(f"--accuracy reports on earlier predictions: leave out {[*overrides, *flags][0]}")
    return options, overrides
