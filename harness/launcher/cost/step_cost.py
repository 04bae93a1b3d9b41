"""How long a run takes in its lane: its FLOPs over the rate that this kind of machine was measured at.

The rate is looked up among earlier runs (launcher.cost.measurements keeps them) whose steps were about as
large, whose
lanes about as wide and whose machine about as crowded; where nothing was measured, a stated default is taken.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.hashing import hash_json, to_plain
from harness.launcher.cost.prediction_log import ASSUMED, MEASURED
from harness.launcher.runs import Run
from harness.records.run.provenance import Facts, code_of

DEFAULT_RATES = {"cpu": 2e10}
"""FLOP/s of one device that was never measured: a small float32 model on one core."""
ACCELERATOR_RATE = 1e14
"""The same of any other device: a third of what a bfloat16 accelerator of 2023 peaks at."""
DEFAULT_STARTUP_SECONDS = {False: 10.0, True: 1.5}
"""Seconds until the first step where it was not measured, by whether the program was compiled before."""
DEFAULT_SAVE_SECONDS = 0.1
"""Seconds of a checkpoint that was not measured."""
TRAIN_PER_FORWARD = 3.0
"""Training costs so many times the FLOPs of a forward pass, which evaluation is."""
RATE_PER_DOUBLING = 0.97
"""Rate a device that is left when a lane is twice as wide as the one that was measured."""
DEFAULT_UNCERTAINTY = 4.0
"""Factor by which a default may be wrong either way."""
UNCERTAINTY, UNCERTAINTY_PER_E = 1.1, 1.25
"""The same for a measured rate, beside its scatter: in any case, and more for each factor e between the run
and what was measured."""
NEIGHBOUR_DISTANCE, MAX_NEIGHBOURS = 0.35, 16
"""Runs count that are no more than this (in ln) farther than the nearest, the newest of them."""


@dataclass(frozen=True)
class Workload:
    """What a run asks for, whatever lane it gets."""

    step_flops: float
    steps: int
    """Of the run and its cooldown branches."""
    evaluation_flops: float
    saves: int


@dataclass(frozen=True)
class Observation:
    """What one finished run measured."""

    step_flops: float
    width: int
    crowd: float
    """Devices in use for each core of the host (simulated ones share them); 1 for real devices."""
    rate: float
    """FLOP/s of one device that has a core to itself, or is real."""
    evaluation: float | None = None
    """Rate of evaluation over that of training."""
    save: float | None = None
    """Seconds of a checkpoint."""
    startup: float | None = None
    """Seconds of all the rest: to compile or load, to initialise, to change over to branches."""
    program: str = ""
    warm: bool = False
    """What was compiled (`program_of`), and whether it had been before."""


@dataclass(frozen=True)
class RunEstimate:
    """Wall seconds of a run in its lane, by what it does; `low` to `high` holds the whole."""

    train: float
    evaluation: float
    save: float
    startup: float
    low: float
    high: float
    runs: int
    """Earlier runs that it rests on; 0: a default."""
    steps: int
    """That `train` takes, those of cooldown branches among them."""
    factor: float = 1.0
    """In `train`: how much longer steps were than they had been predicted (launcher.cost.correction)."""

    @property
    def seconds(self) -> float:
        return self.train + self.evaluation + self.save + self.startup

    @property
    def evidence(self) -> str:
        return MEASURED if self.runs else ASSUMED


def workload_of(config: Config, facts: Facts) -> Workload:
    """From the config and what was described of it. Evaluation is a forward pass over each source."""
    branches = config.schedule.branches
    steps = facts.steps + sum(round(share * facts.steps * config.schedule.cooldown) for share in branches)
    evaluations = config.evaluation.points + len(branches)
    tokens = evaluations * config.evaluation.tokens * max(1, len(config.data.sources))
    return Workload(
        step_flops=facts.executed_flops_per_token * facts.tokens_per_step,
        steps=steps,
        evaluation_flops=tokens * facts.executed_flops_per_token / TRAIN_PER_FORWARD,
        saves=steps // config.checkpoint.every + 1 + 2 * len(branches),
    )


def estimate_run(run: Run, width: int, crowd: float, known: Sequence[Observation]) -> RunEstimate:
    """Of a run on a lane of `width` devices, on a machine with `crowd` devices a core."""
    demand = workload_of(run.config, run.facts)
    near, distance = _near(demand, width, crowd, known)
    rates = np.array([_carried(each, width) for each in near] or [_default_rate(run.config)])
    rate = float(np.median(rates)) * width / max(1.0, crowd)
    low, high = _doubt(rates, distance)
    parts = {
        "train": demand.step_flops * demand.steps / rate,
        "evaluation": demand.evaluation_flops / (rate * _median([each.evaluation for each in near], 1.0)),
        "save": demand.saves * _median([each.save for each in near], DEFAULT_SAVE_SECONDS),
        "startup": _startup(program_hash(run.config), near, known),
    }
    total = sum(parts.values())
    return RunEstimate(**parts, low=total / low, high=total * high, runs=len(near), steps=demand.steps)


def _near(
    demand: Workload, width: int, crowd: float, known: Sequence[Observation]
) -> tuple[list[Observation], float]:
    """The observations that count, and how far away the nearest is (natural logarithm of ratios)."""

    def distance(each: Observation) -> float:
        ratios = (each.step_flops / demand.step_flops, each.width / width, each.crowd / crowd)
        return math.hypot(*map(math.log, ratios))

    far = {index: distance(each) for index, each in enumerate(known)}
    nearest = min(far.values(), default=math.inf)
    chosen = [known[index] for index, d in far.items() if d <= nearest + NEIGHBOUR_DISTANCE]
    return chosen[-MAX_NEIGHBOURS:], nearest


def _startup(program: str, near: Sequence[Observation], known: Sequence[Observation]) -> float:
    """Compiling takes ten times as long as loading what an earlier run compiled."""
    warm = any(each.program == program for each in known)
    alike = [each for each in near if each.warm == warm] or [each for each in known if each.warm == warm]
    return _median([each.startup for each in alike], DEFAULT_STARTUP_SECONDS[warm])


def program_hash(config: Config) -> str:
    """What decides whether the compiled steps of a run are in the cache, hashed (after
    training.programs.run_programs)."""
    optimizer = {key: value for key, value in to_plain(config.optimizer).items() if key != "learning_rate"}
    sizes = [config.scale.parameters, config.scale.batch, config.data.sequence_length, config.mesh]
    return hash_json(
        [config.model, config.compute, config.loss, optimizer, sizes, config.imports, code_of(config)]
    )


def _carried(known: Observation, width: int) -> float:
    """The rate that a device would have in a lane of another width."""
    return known.rate * RATE_PER_DOUBLING ** math.log2(width / known.width)


def _default_rate(config: Config) -> float:
    return DEFAULT_RATES.get(config.cluster.platform, ACCELERATOR_RATE)


def _doubt(rates: np.ndarray, distance: float) -> tuple[float, float]:
    """Factors by which a run may be faster, and slower, than the median rate has it."""
    if not math.isfinite(distance):
        return DEFAULT_UNCERTAINTY, DEFAULT_UNCERTAINTY
    slow, middle, fast = np.quantile(rates, (0.1, 0.5, 0.9))
    doubt = UNCERTAINTY * UNCERTAINTY_PER_E**distance
    return float(fast / middle * doubt), float(middle / slow * doubt)


def _median(values: Sequence[float | None], default: float) -> float:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else default


def possible_meshes(config: Config) -> dict[int, MeshConfig]:
    """Every lane that a run may have, by its devices: its mesh, more or less often along `data`.

    The sequences of a micro-batch divide over `data`, `fsdp` and `expert` (parallel.sharding.axis_rules).
    """
    mesh, rows = config.mesh, config.scale.batch // config.compute.microbatches
    fixed = mesh.fsdp * mesh.expert
    return {
        data * fixed * mesh.tensor * mesh.context: dataclasses.replace(mesh, data=data)
        for data in range(1, rows // fixed + 1)
        if rows % (data * fixed) == 0
    }


def device_bytes(facts: Facts, mesh: MeshConfig) -> float:
    """Memory of one device: `fsdp` and `tensor` split the state; `data`, `fsdp`, `expert` and `context` the
    tokens. What `tensor` splits of the activations, and `expert` of the weights, is counted in full: rather
    too much."""
    tokens = mesh.data * mesh.fsdp * mesh.expert * mesh.context
    return facts.state_bytes / (mesh.fsdp * mesh.tensor) + facts.activation_bytes / tokens


ROW_BYTES = 64
"""Of a metrics part, a step."""


def disk_bytes(run: Run) -> float:
    """What a run leaves on disk at most: the checkpoints that it keeps, without gradients, and its curve."""
    keep, steps, forks = run.config.checkpoint, run.facts.steps, len(run.config.schedule.branches)
    kept = min(keep.keep_last, steps // keep.every + 1) + (steps // keep.keep_every if keep.keep_every else 0)
    saved = run.facts.state_bytes - 4 * run.facts.parameters
    return (kept + 2 * forks) * saved + ROW_BYTES * steps


def available_cores() -> int:
    return len(os.sched_getaffinity(0))


def machine_kind(platform: str) -> str:
    """What a measured rate holds for: the accelerator's platform, or the processor and how much of it."""
    return f"{_processor()} x {available_cores()}" if platform == "cpu" else platform


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
