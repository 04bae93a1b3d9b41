"""`make bench`: speeds as ratios within one run, each with its quartiles. `python -m tests.bench [TABLE...]`

The contenders of a table take turns, since machines are shared and noisy. The lines of PyTorch need
`pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import tables
from tests.bench.steps import speeds
from tests.bench.trackers import mirrored_steps

STEP_ROUNDS, START_ROUNDS = 24, 3
QUICK_STEP_ROUNDS, QUICK_START_ROUNDS = 6, 1


def data(folder: Path) -> Iterator[Table]:
    """Yield the tables of batches and of tokenising, which one process measures."""
    times = tables.output("tests.bench.data", str(folder))
    yield tables.batches(times)
    yield tables.tokenising(times)


TABLES: dict[str, Callable[[Path], Iterator[Table]]] = {
    "steps": lambda folder: iter([speeds(folder, STEP_ROUNDS)]),
    "starts": lambda folder: iter([tables.starts(folder, START_ROUNDS)]),
    "restores": lambda folder: iter([tables.restores(folder)]),
    "overheads": lambda folder: iter([tables.overheads(folder)]),
    "attentions": lambda _: iter([tables.attentions()]),
    "data": data,
    "comparisons": lambda folder: iter([tables.comparisons(folder)]),
    "depths": lambda _: iter([tables.depths()]),
    "lowerings": lambda _: iter([tables.lowerings()]),
    "plans": lambda _: iter([tables.plans()]),
    "mirrors": lambda folder: iter([mirrored_steps(folder)]),
}
QUICK: dict[str, Callable[[Path], Iterator[Table]]] = {
    "steps": lambda folder: iter([speeds(folder, QUICK_STEP_ROUNDS)]),
    "starts": lambda folder: iter([tables.starts(folder, QUICK_START_ROUNDS)]),
    "restores": TABLES["restores"],
}
"""Tables of `make bench-quick`, in less than two minutes on two quiet cores."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all if none")
    parser.add_argument("--quick", action="store_true", help=f"fewer rounds; of {', '.join(QUICK)} alone")
    arguments = parser.parse_args()
    makers = QUICK if arguments.quick else TABLES
    if unknown := [name for name in arguments.tables if name not in makers]:
        parser.error(f"{unknown[0]} is not one of {', '.join(makers)}")
    console = Console()
    for name in arguments.tables or makers:
        with tempfile.TemporaryDirectory() as folder:
            for table in makers[name](Path(folder)):
                console.print(table)


if __name__ == "__main__":
    main()
