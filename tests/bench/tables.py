"""Tables of `make bench` besides the steps: each figure is a median with its quartiles over the rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.config.compose import compose
from harness.records.run.status import read_status
from tests.bench.steps import SHAPE
from tests.bench.task import BENCH
from tests.bench.turns import clean_environment, ratios, spread
from tests.prepared import prepare_run

ROUNDS = 3
ATTENTION_STEPS = 24
EVERY = 50
"""Steps between two saves, in the table of what they cost."""

Times = Mapping[str, Sequence[float]]


def output(*arguments: str) -> Any:
    """Return the JSON that a fresh `python -m ARGUMENTS` prints last; it sees no flag of this process."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def milliseconds(seconds: Sequence[float], form: str = ".0f") -> str:
    """Return the median and quartiles in ms."""
    return spread([1e3 * s for s in seconds]).text(form)


def starts(folder: Path, cold_rounds: int) -> Table:
    """Return the table of first steps at scale m. A cold start has an empty cache, the warm one after it the
    cache that it filled."""
    table = Table("scale m, from the start of a worker to its first step", "seconds", "over warm")
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    for index in range(cold_rounds):
        for state, seconds in times.items():
            seconds.append(first_step(folder / f"{state}{index}", folder / f"cache{index}"))
    table.add_row("cold cache (tokenises and compiles)", *_over(times, "cold", "warm"))
    table.add_row("warm cache", spread(times["warm"]).text(".1f"), "1")
    return table


def _over(times: Times, above: str, below: str, form: str = ".1f") -> tuple[str, str]:
    return spread(times[above]).text(form), spread(ratios(times, above, below)).text()


def first_step(folder: Path, cache: Path) -> float:
    """Return the seconds from the start of a worker's process to the end of its first step, at scale m.
    Raises RuntimeError if it leaves before."""
    run = prepare_run(folder, compose(["scale=m"]))
    environment = os.environ | {"AB_HARNESS_CACHE": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed files have their bytecode
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "harness.worker", str(run.path)], env=environment)
    while read_status(run).step < 1:
        if process.poll() is not None:
            raise RuntimeError(f"the worker left with status {process.returncode}")
        time.sleep(0.01)
    elapsed = time.perf_counter() - start
    process.terminate()
    process.wait()
    return elapsed


def restores(folder: Path) -> Table:
    """Return the table of a save and a restore, beside reading the same files."""
    table = Table(
        "a checkpoint of 120 MB, not in memory", "save, ms", "restore, ms", "read, ms", "speed over reading"
    )
    times = output("tests.bench.restore", str(folder / "restored"), "120")
    cells = [milliseconds(times[name]) for name in ("save", "restore", "read")]
    table.add_row("Orbax, by one writer", *cells, spread(ratios(times, "read", "restore")).text())
    return table


def attentions() -> Table:
    """Return the table of attention mechanisms, which take turns in one process."""
    table = Table("one attention layer, 2,048 tokens, float32", "a step, ms", "full attention's time over it")
    times = output("tests.bench.attention", str(ATTENTION_STEPS))
    for name, values in times.items():
        table.add_row(name, milliseconds(values), spread(ratios(times, "mha", name)).text())
    return table


def overheads(folder: Path) -> Table:
    """Return the table of what the loop and its saves add to the bare step."""
    columns = ("bare step, ms", "loop adds, %", "a save stalls, steps", "writing it adds, steps")
    table = Table("the loop over the bare step", *columns, f"a save every {EVERY} steps adds, %")
    tokens = 64 * BENCH.batch * BENCH.length
    small, large = ["scale=m", "schedule.branches=[]"], [*SHAPE, f"scale.tokens={tokens}"]
    for name, steps, overrides in (("scale m", 30, small), ("width 256, 6 layers", 4, large)):
        times = output("tests.bench.loop", str(folder / f"loop{steps}"), str(steps), *overrides)
        cost = {part: ratios(times, part, "bare") for part in ("loop", "save", "after")}
        in_steps = [a + b for a, b in zip(cost["save"], cost["after"], strict=True)]
        table.add_row(
            name,
            milliseconds(times["bare"], ".1f"),
            spread([100 * (ratio - 1) for ratio in cost["loop"]]).text("+.1f"),
            spread(cost["save"]).text(),
            spread(cost["after"]).text("+.2f"),
            spread([100 * steps / EVERY for steps in in_steps]).text(".1f"),
        )
    return table


def batches(times: Times) -> Table:
    """Return the table of random windows; the harness reads the same ones as the others."""
    columns = [f"{state}{of}" for state in ("cold", "warm") for of in (", ms", ", harness over it")]
    table = Table("256 windows of 1,025 tokens of 512 MiB", *columns)
    for name in ("harness", "memory map", "memory map, MADV_RANDOM", "16 threads"):
        cells = []
        for state in ("cold", "warm"):
            own = f"{name}, {state}"
            cells += [milliseconds(times[own], ".1f"), spread(ratios(times, own, f"harness, {state}")).text()]
        table.add_row(name, *cells)
    return table


def tokenising(times: Times) -> Table:
    """Return the table of a text, with the shipped tokenizer; a process of its own opens the tokens again."""
    table = Table("68 MB of text", "seconds", "speed over the library's")
    for name in ("library", "harness", "opened again"):
        table.add_row(name, spread(times[name]).text(), spread(ratios(times, "library", name)).text())
    return table


def comparisons(folder: Path) -> Table:
    """Return the table of `compare` over many runs."""
    table = Table("compare, 10,000 evaluations a run", "ms a run, CPU", "over a hundred", "peak MiB")
    results = {runs: output("tests.bench.comparison", str(folder), str(runs)) for runs in (100, 1000)}
    a_run = {str(runs): [s / runs for s in result["seconds"]] for runs, result in results.items()}
    for runs, result in results.items():
        over = spread(ratios(a_run, str(runs), "100")).text()
        table.add_row(f"{runs} runs", milliseconds(a_run[str(runs)], ".2f"), over, f"{result['mib']:.0f}")
    return table


def depths() -> Table:
    """Return the table of what a deep model costs to compile."""
    table = Table("a step of width 256, compiled", "12 layers, CPU-s", "24 layers, CPU-s", "over 12")
    ways = {"scanned (the default from 12 layers)": "null", "unrolled": "false"}
    times: dict[str, list[float]] = {f"{name}{layers}": [] for name in ways for layers in (12, 24)}
    for _ in range(ROUNDS):
        for name, scan in ways.items():
            for layers in (12, 24):
                seconds = output("tests.bench.depth", str(layers), scan)["seconds"]
                times[f"{name}{layers}"].append(seconds)
    for name in ways:
        table.add_row(name, spread(times[f"{name}12"]).text(".1f"), *_over(times, f"{name}24", f"{name}12"))
    return table


def lowerings() -> Table:
    """Return the table of the largest planned step."""
    table = Table("the step of 10T, lowered over no devices", "devices", "seconds")
    for fsdp in (16, 64):
        results = [output("tests.bench.lowering", str(fsdp)) for _ in range(ROUNDS)]
        seconds = spread([result["seconds"] for result in results])
        table.add_row("10t/mha", f"{results[0]['devices']:,}", seconds.text(".1f"))
    return table


def plans() -> Table:
    """Return the table of the whole command, with what it describes once."""
    table = Table("harness plan, seven frontier rows", "devices", "seconds")
    for cluster, devices in (("colossus1", 229_952), ("colossus2", 550_000)):
        seconds = spread([_plan(cluster) for _ in range(ROUNDS)])
        table.add_row(cluster, f"{devices:,}", seconds.text(".1f"))
    return table


def _plan(cluster: str) -> float:
    overrides = ["experiment=colossus2", "roster=frontier", f"cluster={cluster}"]
    command = [sys.executable, "-m", "harness.cli", "plan", *overrides]
    start = time.perf_counter()
    subprocess.run(command, env=clean_environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
