"""`make bench-sweep`: whole sweeps as a user waits for them. `python -m tests.bench.sweep [PART...]`

Part `eight`: eight runs by the harness and by Hydra's own launchers, which train the same runs. A cold sweep
finds empty caches: tokenising, compiling, evaluating and saving are in it, and of the harness the comparison
and the report too. A warm sweep is the same command into another folder, with the caches that the cold one
filled: the harness's own, and JAX's persistent cache for the others.

Part `demo`: `make demo` from an empty cache, over eight cold starts of a naive trainer at the shape of the
demo's largest scale. A start is a fresh process that imports JAX, compiles, makes one step and leaves; four
come before the demo and four after it. A ratio of 3 says that the 27 runs of the demo, with their report,
take as long as 24 such starts, on a fast machine or a slow one. Beside it stands the share of the machine
that trained, from the records of the runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.records.paths import SweepDir
from harness.report.frames.sweep_progress import ProgressReader
from tests.bench.turns import clean_environment, ratios, spread

RUNS = [
    "variant=mha,hybrid",
    "scale=s,m",
    "seed=0,1",
    "scale.batch=8",
    f"scale.tokens={150 * 8 * 128}",
    "schedule.branches=[]",
]
"""2 variants x 2 scales x 2 seeds, 150 steps each."""

PLAIN = ["tests.bench.plain", "-m", "hydra.sweep.dir=${runs}"]
HARNESS, BASIC, JOBLIB = "harness sweep", "Hydra basic, one process", "Hydra joblib, two workers"
LAUNCHERS = {
    HARNESS: ["harness.cli", "sweep"],
    BASIC: [*PLAIN, "hydra/launcher=basic"],
    JOBLIB: [*PLAIN, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}
STATES = ("cold", "warm")
STORE_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Variables with which JAX's cache stores even small programs."""
STARTS = 8


def seconds_of(arguments: Sequence[str], caches: Path) -> float:
    """Return the wall seconds of `python -m ARGUMENTS`, which keeps all that it may reuse in `caches`: its
    programs in JAX's persistent cache, unless it is the harness, which sets JAX's options itself."""
    environment = clean_environment(AB_HARNESS_CACHE=str(caches / "harness"))
    if arguments[0] != "harness.cli":
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(caches / "jax")} | STORE_ALL
    command, start = [sys.executable, "-m", *arguments], time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def eight(console: Console, rounds: int) -> Table:
    """Return the table of eight runs; without a line of joblib where its launcher is not installed."""
    names = [*LAUNCHERS]
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        names.remove(JOBLIB)
        console.print(
            "Install hydra-joblib-launcher to compare with it: `pip install hydra-joblib-launcher`."
        )
    times = {state: {name: list[float]() for name in names} for state in STATES}
    for index in range(rounds):
        turn = index % len(names)
        for name in [*names[turn:], *names[:turn]]:
            for state, seconds in _cold_and_warm(LAUNCHERS[name]).items():
                times[state][name].append(seconds)
                console.print(f"[dim]round {index + 1}: {name}, {state}: {seconds:.1f} s[/]")
    columns = [f"{state}{of}" for state in STATES for of in (", seconds", ": the harness's time over it")]
    table = Table("eight runs", *columns)
    for name in names:
        cells = []
        for state in STATES:
            cells += [spread(times[state][name]).text(".0f"), _by_round(ratios(times[state], HARNESS, name))]
        table.add_row(name, *cells)
    return table


def _cold_and_warm(launcher: Sequence[str]) -> dict[str, float]:
    """Return the seconds of a launcher's first sweep, and of its second one with the caches of the first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            state: seconds_of([*launcher, f"runs={folder / state}", *RUNS], folder / "caches")
            for state in STATES
        }


def _by_round(values: Sequence[float]) -> str:
    return f"{spread(values).median:.2f} [{' '.join(f'{value:.2f}' for value in values)}]"


def demo(console: Console, rounds: int) -> Table:
    """Return the table of the demo."""
    times: dict[str, list[float]] = {"demo": [], "starts": []}
    shares = []
    for index in range(rounds):
        before = _naive_starts(STARTS // 2)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = ["harness.cli", "sweep", "experiment=attention", f"runs={folder / 'runs'}"]
            times["demo"].append(seconds_of(command, folder / "caches"))
            shares.append(share_that_trained(folder / "runs" / "attention"))
        times["starts"].append(before + _naive_starts(STARTS - STARTS // 2))
        taken = ", ".join(f"{name} {seconds[-1]:.0f} s" for name, seconds in times.items())
        console.print(f"[dim]round {index + 1}: {taken}, {shares[-1]:.0%} of the machine trained[/]")
    table = Table(
        "the demo, cold", "seconds", f"over {STARTS} naive cold starts", "of the machine trained, %"
    )
    trained = spread([100 * share for share in shares]).text(".0f")
    over = _by_round(ratios(times, "demo", "starts"))
    table.add_row(
        "harness sweep experiment=attention, 27 runs", spread(times["demo"]).text(".0f"), over, trained
    )
    table.add_row(f"{STARTS} naive cold starts, one by one", spread(times["starts"]).text(".0f"), "1", "")
    return table


def _naive_starts(count: int) -> float:
    """Return the seconds of so many cold starts, one by one."""
    seconds = 0.0
    for _ in range(count):
        with tempfile.TemporaryDirectory() as caches:
            seconds += seconds_of(["tests.bench.naive", "m"], Path(caches))
    return seconds


def share_that_trained(sweep: Path) -> float:
    """Return the share of the machine that trained, as `harness watch` prints it. Raises RuntimeError if no
    run has a timeline."""
    used = ProgressReader(SweepDir(sweep)).read(time.time()).utilisation
    if used is None:
        raise RuntimeError(f"{sweep}: no run has a timeline")
    return used.share


PARTS = {"eight": eight, "demo": demo}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sweep")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"{unknown[0]} is not one of {', '.join(PARTS)}")
    console = Console()
    for name in arguments.parts or PARTS:
        console.print(PARTS[name](console, arguments.rounds))


if __name__ == "__main__":
    main()
