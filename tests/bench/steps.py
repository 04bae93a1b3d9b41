"""Table of training steps: the worker's in two precisions, a naive one, PyTorch's, the machine's ceiling."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from harness.config.compose import compose
from tests.bench import ceiling
from tests.bench.task import BENCH
from tests.bench.turns import LiveContender, ratios, spread, take_turns
from tests.prepared import prepare_run

DEVICES = 2
STEPS = 400
"""Steps of a run: more than are ever asked for, so that its end with evaluation and save is never reached."""
SHAPE = [
    f"model.width={BENCH.width}",
    f"model.layers={BENCH.layers}",
    f"model.heads={BENCH.heads}",
    f"model.head_width={BENCH.width // BENCH.heads}",
    f"model.ffn={BENCH.ffn}",
    "scale.name=bench",
    "scale.parameters=6298000",
    f"scale.batch={BENCH.batch}",
    f"data.sequence_length={BENCH.length}",
    f"mesh.data={DEVICES}",
    "schedule.branches=[]",
    "evaluation.points=1",
    "evaluation.tokens=4096",
]
CEILING = "ceiling: numpy product, float32"
OTHERS = {
    CEILING: ["tests.bench.ceiling"],
    "naive jit, float32": ["tests.bench.naive", "bench"],
    "PyTorch eager, float32": ["tests.bench.nanogpt", "float32"],
    "PyTorch eager, bfloat16 autocast": ["tests.bench.nanogpt", "bfloat16"],
}
WORKERS = {f"the worker, {dtype}": dtype for dtype in ("float32", "bfloat16")}


def speeds(folder: Path, rounds: int) -> Table:
    """Return the table of `rounds` rounds. The runs of the worker are made in `folder`."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(contender) for contender in start_contenders(folder)]
        for contender in contenders:
            contender.wait_until_ready()
        times = take_turns(contenders, rounds)
    workers = [*WORKERS]
    columns = [f"speed of {name} over it" for name in workers]
    table = Table(f"one training step, {rounds} rounds", "ms", "GFLOP/s", *columns)
    for name, seconds in times.items():
        step = spread(seconds)
        work = ceiling.FLOPS if name == CEILING else BENCH.flops
        cells = [step_ratio(times, name, ours) for ours in workers]
        table.add_row(
            name, spread([1e3 * s for s in seconds]).text(".0f"), f"{work / step.median / 1e9:.0f}", *cells
        )
    return table


def step_ratio(times: dict[str, list[float]], name: str, ours: str) -> str:
    """Return median and quartiles of the worker's speed over a contender's, at equal work."""
    work = ceiling.FLOPS / BENCH.flops if name == CEILING else 1.0
    return spread([ratio / work for ratio in ratios(times, name, ours)]).text() if name != ours else ""


def start_contenders(folder: Path) -> list[LiveContender]:
    """Start all contenders; PyTorch's only where it is installed."""
    runs = {name: prepare(folder / dtype, f"compute.dtype={dtype}") for name, dtype in WORKERS.items()}
    commands = OTHERS | {name: ["tests.bench.worker_step", str(path)] for name, path in runs.items()}
    if importlib.util.find_spec("torch") is None:
        commands = {name: command for name, command in commands.items() if "nanogpt" not in command[0]}
    return [LiveContender(name, ["-m", *command]) for name, command in commands.items()]


def prepare(folder: Path, *overrides: str) -> Path:
    """Return the directory of a run of the bench's shape."""
    tokens = STEPS * BENCH.batch * BENCH.length
    return prepare_run(folder, compose([*SHAPE, f"scale.tokens={tokens}", *overrides])).path
