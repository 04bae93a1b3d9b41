"""`make bench-sweep`: the makespan of eight runs, under `harness sweep` and under Hydra's own launchers.

Each contender trains the same runs from a cold cache, in turn within one run: tokenising, compiling,
evaluating and saving are in it, and of the harness the comparison and the report too.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RUNS = [
    "variant=mha,hybrid",
    "scale=s,m",
    "seed=0,1",
    "scale.batch=8",
    f"scale.tokens={150 * 8 * 128}",
    "schedule.branches=[]",
]
"""2 variants x 2 scales x 2 seeds, 150 steps each."""

PLAIN = ["-m", "tests.bench.plain", "-m", "hydra.sweep.dir=${runs}"]
CONTENDERS = {
    "harness sweep": ["-m", "harness.cli", "sweep"],
    "Hydra's basic launcher, one process": [*PLAIN, "hydra/launcher=basic"],
    "Hydra's joblib launcher, two workers": [*PLAIN, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}
JOBLIB = "Hydra's joblib launcher, two workers"


def makespan(arguments: list[str], folder: Path) -> float:
    """Wall seconds of a whole command, which finds nothing in its cache."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    environment |= {"AB_HARNESS_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    command = [sys.executable, *arguments, f"runs={folder / 'runs'}", *RUNS]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    console, names = Console(), [*CONTENDERS]
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        names.remove(JOBLIB)
        console.print("without hydra-joblib-launcher: `pip install hydra-joblib-launcher` to compare with it")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(makespan(CONTENDERS[name], Path(folder)))
            console.print(f"[dim]round {index + 1}: {name} {seconds[name][-1]:.1f} s[/]")
    ours, *others = names
    table = Table("eight runs, cold cache", "seconds", "the harness's time over it, by round")
    for name in [ours, *others]:
        ratios = [own / other for own, other in zip(seconds[ours], seconds[name], strict=True)]
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        table.add_row(
            name, f"{statistics.median(seconds[name]):.0f}", f"{statistics.median(ratios):.2f} ({shown})"
        )
    console.print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
