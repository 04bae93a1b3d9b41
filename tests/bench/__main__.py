"""`make bench`: each figure is a ratio of things measured in turn within this run."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from harness.config.compose import compose
from harness.records.run.metrics import read_curve
from harness.records.run.status import read_status
from tests.bench.task import BATCH, FFN, FLOPS, HEADS, LAYERS, LENGTH, WIDTH
from tests.prepared import prepare_run

ROUNDS, STEPS = 3, 8
EVERY = 50
DEVICES = 2
SHAPE = [
    f"model.width={WIDTH}",
    f"model.layers={LAYERS}",
    f"model.heads={HEADS}",
    f"model.head_width={WIDTH // HEADS}",
    f"model.ffn={FFN}",
    "scale.name=bench",
    "scale.parameters=6298000",
    f"scale.batch={BATCH}",
    f"data.sequence_length={LENGTH}",
    f"mesh.data={DEVICES}",
    "schedule.branches=[]",
    "evaluation.points=1",
    "evaluation.tokens=4096",
]


def python(*arguments: str) -> str:
    """What a fresh process prints; it sees no flag of this one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def contender(module: str) -> float:
    """GFLOP/s by the median of the times that it prints; the ceiling prints seconds a TFLOP."""
    work = 1e12 if module == "ceiling" else FLOPS
    times = json.loads(python(f"tests.bench.{module}", str(STEPS)).splitlines()[-1])
    return work / statistics.median(times) / 1e9


def worker(folder: Path) -> float:
    """GFLOP/s of a run by `python -m harness.worker`, with its metrics and checkpoints."""
    config = compose([*SHAPE, f"scale.tokens={STEPS * BATCH * LENGTH}", "checkpoint.every=4"])
    run = prepare_run(folder, config)
    python("harness.worker", str(run.path))
    seconds = read_curve(run, "steps")["device_seconds"].diff().drop_nulls() / DEVICES
    return FLOPS / cast(float, seconds.median()) / 1e9


def first_step(folder: Path, cache: Path) -> float:
    """Seconds from the start of a worker's process to the end of its first step, at scale m."""
    run = prepare_run(folder, compose(["scale=m"]))
    environment = os.environ | {"AB_HARNESS_CACHE": str(cache)}
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


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(speeds(folder, console))
        console.print(attentions())
        console.print(overheads(folder))
        console.print(restores(folder))
        console.print(starts(folder))
        times = json.loads(python("tests.bench.data", str(folder)).splitlines()[-1])
        console.print(batches(times))
        console.print(tokenising(times))
        console.print(comparisons(folder))
        console.print(depths())
        console.print(lowerings())
        console.print(plans())


def speeds(folder: Path, console: Console) -> Table:
    others = ["ceiling", "naive"] + (["nanogpt"] if importlib.util.find_spec("torch") else [])
    rates: dict[str, list[float]] = {name: [] for name in [*others, "worker"]}
    for index in range(ROUNDS):
        for name in others:
            rates[name].append(contender(name))
        rates["worker"].append(worker(folder / f"speed{index}"))
        console.print(f"[dim]round {index + 1} of {ROUNDS}[/]")
    table = Table("one training step, float32", "GFLOP/s", "the worker's speed over it, by round")
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["worker"], values, strict=True)]
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        table.add_row(name, f"{statistics.median(values):.0f}", f"{statistics.median(ratios):.2f}  ({shown})")
    return table


def attentions() -> Table:
    table = Table(
        "one attention layer, 2,048 tokens, float32", "a step", "full attention's time over it, by round"
    )
    times = json.loads(python("tests.bench.attention", str(ROUNDS * STEPS)).splitlines()[-1])
    for name, values in times.items():
        ratios = [full / own for full, own in zip(times["mha"], values, strict=True)]
        shown = " ".join(f"{statistics.median(ratios[i::ROUNDS]):.2f}" for i in range(ROUNDS))
        table.add_row(
            name, f"{statistics.median(values) * 1e3:.0f} ms", f"{statistics.median(ratios):.2f}  ({shown})"
        )
    return table


def overheads(folder: Path) -> Table:
    columns = ("bare step", "loop adds", "a save stalls", "writing it adds", f"at a save every {EVERY} steps")
    table = Table("the loop over the bare step", *columns)
    small, large = ["scale=m", "schedule.branches=[]"], [*SHAPE, f"scale.tokens={64 * BATCH * LENGTH}"]
    for name, steps, overrides in (("scale m", 30, small), ("width 256, 6 layers", 4, large)):
        printed = python("tests.bench.loop", str(folder / f"loop{steps}"), str(steps), *overrides)
        t = json.loads(printed.splitlines()[-1])
        table.add_row(
            name,
            f"{t['bare'] * 1e3:.1f} ms",
            f"{t['loop'] / t['bare'] - 1:+.1%}",
            f"{t['save'] / t['bare']:.2f} steps",
            f"{t['after'] / t['bare']:+.2f} steps",
            f"{(t['save'] + t['after']) / (EVERY * t['bare']):.1%}",
        )
    return table


def restores(folder: Path) -> Table:
    table = Table(
        "a checkpoint of 120 MB, not in memory", "save", "restore", "read", "restore's speed over reading"
    )
    t = json.loads(python("tests.bench.restore", str(folder / "restored"), "120").splitlines()[-1])
    shown = [f"{t[name] * 1e3:.0f} ms" for name in ("save", "restore", "read")]
    table.add_row("Orbax, by one writer", *shown, f"{t['read'] / t['restore']:.2f}")
    return table


def starts(folder: Path) -> Table:
    table = Table("from import to first step", "seconds", "over warm")
    cache = folder / "cache"
    cold = first_step(folder / "cold", cache)
    warm = first_step(folder / "warm", cache)
    table.add_row("cold cache (tokenises and compiles)", f"{cold:.1f}", f"{cold / warm:.1f}")
    table.add_row("warm cache", f"{warm:.1f}", "1.0")
    return table


def batches(times: Mapping[str, float]) -> Table:
    """Of random windows; the harness reads the same ones as the others."""
    table = Table(
        "256 windows of 1,025 tokens of 512 MiB", "cold", "harness over it", "warm", "harness over it"
    )
    for name in ("harness", "memory map", "memory map, MADV_RANDOM", "16 threads"):
        cells = []
        for state in ("cold", "warm"):
            taken = times[f"{name}, {state}"]
            cells += [f"{taken * 1e3:.1f} ms", f"{taken / times[f'harness, {state}']:.2f}"]
        table.add_row(name, *cells)
    return table


def tokenising(times: Mapping[str, float]) -> Table:
    """Of a text, with the shipped tokenizer; its tokens are opened again by a process of its own."""
    table = Table("68 MB of text", "seconds", "speed over the library's")
    for name in ("library", "harness", "opened again"):
        table.add_row(name, f"{times[name]:.2f}", f"{times['library'] / times[name]:.2f}")
    return table


def comparisons(folder: Path) -> Table:
    columns = ("CPU seconds", "ms a run", "over a hundred", "peak MiB")
    table = Table("compare, 10,000 evaluations a run", *columns)
    found = [json.loads(python("tests.bench.comparison", str(folder), str(n))) for n in (100, 1000)]
    base = found[0]["seconds"] / found[0]["runs"]
    for item in found:
        a_run = item["seconds"] / item["runs"]
        cells = f"{item['seconds']:.2f}", f"{1e3 * a_run:.2f}", f"{a_run / base:.2f}", f"{item['mib']:.0f}"
        table.add_row(f"{item['runs']} runs", *cells)
    return table


def depths() -> Table:
    table = Table("a step of width 256, compiled", "12 layers", "24 layers", "over 12")
    for name, scan in (("scanned (the default from 12 layers)", "null"), ("unrolled", "false")):
        one, two = (json.loads(python("tests.bench.depth", str(n), scan))["seconds"] for n in (12, 24))
        table.add_row(name, f"{one:.1f} CPU-s", f"{two:.1f} CPU-s", f"{two / one:.2f}")
    return table


def lowerings() -> Table:
    table = Table("the step of 10T, lowered over no devices", "devices", "seconds")
    for fsdp in (16, 64):
        found = json.loads(python("tests.bench.lowering", str(fsdp)))
        table.add_row("10t/mha", f"{found['devices']:,}", f"{found['seconds']:.1f}")
    return table


def plans() -> Table:
    """Of the whole command, what it describes once among it."""
    table = Table("harness plan, seven frontier rows", "devices", "seconds")
    for cluster, devices in (("colossus1", 229_952), ("colossus2", 550_000)):
        start = time.perf_counter()
        python("harness.cli", "plan", "experiment=colossus2", "roster=frontier", f"cluster={cluster}")
        table.add_row(cluster, f"{devices:,}", f"{time.perf_counter() - start:.1f}")
    return table


if __name__ == "__main__":
    main()
