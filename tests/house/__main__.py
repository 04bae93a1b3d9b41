"""Print the measures of the package: `python -m tests.house [-v] [--room ROOM] [--names ...]`."""

import argparse
import signal
from pathlib import Path

from tests.house.limits import LIMITS
from tests.house.source import HARNESS
from tests.house.table import as_text, measures

LISTINGS = [key for key in LIMITS if key != "lines"]


def main() -> None:
    """Print the table, or the offenders that were asked for."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = _parser().parse_args()
    rows = measures(arguments.room, arguments.root)
    listed = [key for key in LISTINGS if getattr(arguments, key)]
    if listed:
        for key in listed:
            print(*rows[key].findings, sep="\n")
        return
    print(as_text(rows))
    if arguments.verbose:
        for row in rows.values():
            if row.findings:
                print(f"\n{row.title} ({row.key})", *row.findings, row.mend, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="list every offender below the table")
    parser.add_argument("--room", help="measure one room, for example compare")
    parser.add_argument("--root", type=Path, default=HARNESS, help="folder of another copy of the package")
    for key in LISTINGS:
        flag = f"--{key.replace('_', '-')}"
        parser.add_argument(flag, action="store_true", help=f"list only the offenders of {key}")
    return parser


if __name__ == "__main__":
    main()
