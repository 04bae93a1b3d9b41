"""One command, `harness`, and its verbs. Each verb imports what it needs, when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.errors import UserError, nearest

if TYPE_CHECKING:
    from harness.compare.results import Comparison

MISTAKE = 2


@dataclass(frozen=True)
class Verb:
    what: str
    example: str
    call: Callable[[Sequence[str]], int]
    details: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 if runs failed for good, 2 for a user's mistake, 130 when interrupted."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in VERBS:
        print(f"harness {name}: no such verb; {nearest(name, VERBS)}", file=sys.stderr)
        return MISTAKE
    if any(each in ("-h", "--help") for each in rest):
        print(_help(name))
        return 0
    sys.path.insert(0, os.getcwd())  # as `python -m` does: users' mechanisms lie where they work
    try:
        return VERBS[name].call(rest)
    except UserError as error:
        print(error, file=sys.stderr)
        return MISTAKE


def _sweep(arguments: Sequence[str]) -> int:
    from harness import train

    return train.main(["-m", *arguments])


def _train(arguments: Sequence[str]) -> int:
    from harness import train

    return train.main(["hydra.mode=RUN", *arguments])


def _compare(arguments: Sequence[str]) -> int:
    options = _compare_options().parse_args(arguments)
    from harness.compare import compare

    comparisons = [compare(_sweep_directory(path)) for path in options.sweeps]
    if options.json:
        _print_json(comparisons)
    else:
        _print_tables(comparisons)
    if options.html:
        _write_reports(options.sweeps, comparisons)
    if options.pictures:
        _write_pictures(options.sweeps, comparisons)
    return int(options.require == "promote" and not all(map(_promotes, comparisons)))


def _compare_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("harness compare", add_help=False)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--html", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--require", choices=["promote"])
    return parser


def _sweep_directory(path: str):
    from harness.records.layout import SweepDir

    sweep = SweepDir(Path(path))
    if not any(sweep.runs()):
        beside = sorted(str(each.parent) for each in Path().glob("runs/*/rule.json"))
        way_out = nearest(path, beside) if beside else "`harness sweep` makes one"
        raise UserError(f"{path}: no sweep lies there; {way_out}")
    return sweep


def _print_json(comparisons: Sequence[Comparison]) -> None:
    """One object for one sweep, a list for several."""
    import json

    from harness.compare.results import dumps, to_json

    if len(comparisons) == 1:
        print(dumps(comparisons[0]), end="")
    else:
        print(json.dumps([to_json(each) for each in comparisons], indent=2, sort_keys=True))


def _print_tables(comparisons: Sequence[Comparison]) -> None:
    from rich.console import Console

    from harness.report.terminal import print_comparison

    for comparison in comparisons:
        print_comparison(comparison, Console())


def _write_reports(paths: Sequence[str], comparisons: Sequence[Comparison]) -> None:
    from harness.report.page import write_report

    for path, comparison in zip(paths, comparisons, strict=True):
        sweep = _sweep_directory(path)
        write_report(sweep, comparison)
        print(sweep.report, file=sys.stderr)


def _write_pictures(paths: Sequence[str], comparisons: Sequence[Comparison]) -> None:
    from harness.report.pictures import write_pictures

    for path, comparison in zip(paths, comparisons, strict=True):
        sweep = _sweep_directory(path)
        for picture in write_pictures(sweep, comparison, sweep.path / "pictures"):
            print(picture, file=sys.stderr)


def _promotes(comparison: Comparison) -> bool:
    return any(result.promote for result in comparison.gate or ())


def _stop(arguments: Sequence[str]) -> int:
    from harness.fleet.stop import stop

    if len(arguments) != 1:
        raise UserError("harness stop SWEEP: one sweep directory, such as runs/attention")
    print(stop(_sweep_directory(arguments[0])))
    return 0


VERBS = {
    "sweep": Verb(
        "train every pair, compare, print the verdict, write the report; repeat it to continue",
        "harness sweep experiment=attention scale=xs,s seed=0,1,2",
        _sweep,
        "OVERRIDES as Hydra reads them: KEY=VALUE sets, KEY=a,b,c sweeps; conf/ holds what can be chosen.\n"
        "What is finished is not trained again. Exit status 0 whatever the verdict, 1 if runs failed.\n"
        "`harness sweep --cfg job OVERRIDES` prints the config instead.",
    ),
    "train": Verb(
        "train one run in this process",
        "harness train variant=hybrid scale=xs seed=1",
        _train,
        "The run lies in runs/<experiment_name>/<scale>/<variant>/seed<k>; the same command continues it.",
    ),
    "compare": Verb(
        "the verdict tables of a sweep",
        "harness compare runs/attention --json",
        _compare,
        "SWEEP...            directories of sweeps\n"
        "--json              the whole comparison as JSON\n"
        "--html              write SWEEP/report.html too\n"
        "--pictures          write SWEEP/pictures/*.png and *.svg too\n"
        "--require promote   exit status 1 unless a variant passes the gate; else 0 whatever the verdict",
    ),
    "stop": Verb(
        "every run of a sweep saves and leaves; the sweep command continues it",
        "harness stop runs/attention",
        _stop,
    ),
}


def _overview() -> str:
    lines = [
        "Trains two architectures side by side over a ladder of scales, and says which one to bet on.",
        "",
    ]
    for name, verb in VERBS.items():
        lines += [f"  {name:8} {verb.what}", f"           $ {verb.example}"]
    return "\n".join([*lines, "", "harness VERB --help says more."])


def _help(name: str) -> str:
    verb = VERBS[name]
    return "\n".join(
        filter(None, [f"harness {name}: {verb.what}", "", f"  $ {verb.example}", "", verb.details])
    )


if __name__ == "__main__":
    sys.exit(main())
