"""Predicted time of a run in its lane: its FLOPs over a rate that was measured on this kind of machine.

The rate is the median of similar earlier runs (launcher.cost.measurements stores them): similar FLOPs a
step, lane width and oversubscription. Without any measurement a stated default is used.
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
from harness.launcher.runs import Run
from harness.records.run.provenance import Facts, code_hash_of

MEASURED, ASSUMED = "earlier runs on this machine", "assumed"
"""Labels of the evidence that a prediction for this machine rests on."""
DEFAULT_RATES = {"cpu": 2e10}
"""FLOP/s of one device without a measurement: a small float32 model on one core."""
ACCELERATOR_RATE = 1e14
"""FLOP/s of any other device without a measurement: a third of the bfloat16 peak of a 2023 accelerator."""
DEFAULT_STARTUP_SECONDS = {False: 10.0, True: 1.5}
"""Seconds until the first step without a measurement, by whether the program was compiled before."""
DEFAULT_SAVE_SECONDS = 0.1
"""Seconds of a checkpoint without a measurement."""
TRAIN_PER_FORWARD = 3.0
"""FLOPs of a training step over those of a forward pass; an evaluation is a forward pass."""
RATE_PER_DOUBLING = 0.97
"""Share of a device's rate that remains when the lane is twice as wide as the measured one."""
DEFAULT_UNCERTAINTY = 4.0
"""Factor by which a default may be wrong either way."""
UNCERTAINTY, UNCERTAINTY_PER_E = 1.1, 1.25
"""Factors by which a measured rate may be wrong, besides its scatter: always, and for each factor e between
the run and the nearest measurement."""
NEIGHBOUR_DISTANCE, MAX_NEIGHBOURS = 0.35, 16
"""Runs that count: no more than this distance (in ln) beyond the nearest one, and the newest of these."""
ROW_BYTES = 64
"""Bytes of one step in a metrics file."""


@dataclass(frozen=True)
class Workload:
    """Work of a run, which does not depend on its lane."""

    step_flops: float
    steps: int
    """Steps of the run and its cooldown branches."""
    evaluation_flops: float
    saves: int


@dataclass(frozen=True)
class Observation:
    """Rates measured in one finished run."""

    step_flops: float
    width: int
    crowd: float
    """Devices in use for each core of the host (simulated ones share them); 1 for real devices."""
    rate: float
    """FLOP/s of one device that has a core to itself, or is real."""
    evaluation: float | None = None
    """Evaluation rate over training rate."""
    save: float | None = None
    """Seconds of a checkpoint."""
    startup: float | None = None
    """Seconds of everything else: compiling or loading, initialising, switching to branches."""
    program: str = ""
    """Hash of the compiled program (`program_hash`)."""
    warm: bool = False
    """True if the program had been compiled before."""


@dataclass(frozen=True)
class RunEstimate:
    """Predicted wall seconds of a run in its lane, by activity, with bounds `low` and `high` of their sum."""

    train: float
    evaluation: float
    save: float
    startup: float
    low: float
    high: float
    runs: int
    """Number of earlier runs that it rests on; 0 means a default."""
    steps: int
    """Steps in `train`, with those of cooldown branches."""
    factor: float = 1.0
    """Correction that `train` includes (launcher.cost.prediction_log)."""

    @property
    def seconds(self) -> float:
        """Predicted wall seconds of the whole run."""
        return self.train + self.evaluation + self.save + self.startup

    @property
    def evidence(self) -> str:
        """Label of the evidence: MEASURED or ASSUMED."""
        return MEASURED if self.runs else ASSUMED


def workload_of(config: Config, facts: Facts) -> Workload:
    """Return the work of a run. An evaluation is a forward pass over each data source."""
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


def estimate_run(
    run: Run, width: int, oversubscription: float, observations: Sequence[Observation]
) -> RunEstimate:
    """Predict the time of a run on `width` devices of a machine with `oversubscription` devices a core."""
    workload = workload_of(run.config, run.facts)
    near, distance = _nearest(workload, width, oversubscription, observations)
    default = DEFAULT_RATES.get(run.config.cluster.platform, ACCELERATOR_RATE)
    rates = np.array([o.rate * RATE_PER_DOUBLING ** math.log2(width / o.width) for o in near] or [default])
    rate = float(np.median(rates)) * width / max(1.0, oversubscription)
    low, high = _uncertainty(rates, distance)
    parts = {
        "train": workload.step_flops * workload.steps / rate,
        "evaluation": workload.evaluation_flops / (rate * _median([o.evaluation for o in near], 1.0)),
        "save": workload.saves * _median([o.save for o in near], DEFAULT_SAVE_SECONDS),
        "startup": _startup_seconds(program_hash(run.config), near, observations),
    }
    total = sum(parts.values())
    return RunEstimate(**parts, low=total / low, high=total * high, runs=len(near), steps=workload.steps)


def _nearest(
    workload: Workload, width: int, oversubscription: float, observations: Sequence[Observation]
) -> tuple[list[Observation], float]:
    """Return the observations that count, and the distance of the nearest (natural logarithm of ratios)."""

    def distance(o: Observation) -> float:
        ratios = (o.step_flops / workload.step_flops, o.width / width, o.crowd / oversubscription)
        return math.hypot(*map(math.log, ratios))

    distances = [distance(observation) for observation in observations]
    nearest = min(distances, default=math.inf)
    near = [o for o, d in zip(observations, distances, strict=True) if d <= nearest + NEIGHBOUR_DISTANCE]
    return near[-MAX_NEIGHBOURS:], nearest


def _startup_seconds(program: str, near: Sequence[Observation], observations: Sequence[Observation]) -> float:
    """Return the startup time. Compiling takes ten times as long as loading a compiled program."""
    warm = any(observation.program == program for observation in observations)
    similar = [o for o in near if o.warm == warm] or [o for o in observations if o.warm == warm]
    return _median([observation.startup for observation in similar], DEFAULT_STARTUP_SECONDS[warm])


def program_hash(config: Config) -> str:
    """Return the hash of all that decides whether the compiled steps of a run are in the compile cache. It
    follows training.programs.run_programs."""
    optimizer = {key: value for key, value in to_plain(config.optimizer).items() if key != "learning_rate"}
    sizes = [config.scale.parameters, config.scale.batch, config.data.sequence_length, config.mesh]
    nodes = [config.model, config.compute, config.loss, optimizer, sizes]
    return hash_json([*nodes, config.imports, code_hash_of(config)])


def _uncertainty(rates: np.ndarray, distance: float) -> tuple[float, float]:
    """Return the factors by which a run may be faster, and slower, than at the median rate."""
    if not math.isfinite(distance):
        return DEFAULT_UNCERTAINTY, DEFAULT_UNCERTAINTY
    slow, middle, fast = np.quantile(rates, (0.1, 0.5, 0.9))
    factor = UNCERTAINTY * UNCERTAINTY_PER_E**distance
    return float(fast / middle * factor), float(middle / slow * factor)


def _median(values: Sequence[float | None], default: float) -> float:
    known_values = [value for value in values if value is not None]
    return float(np.median(known_values)) if known_values else default


def possible_meshes(config: Config) -> dict[int, MeshConfig]:
    """Return every mesh that a run may have, by its number of devices: its own with another size of `data`.
    The sequences of a micro-batch divide over `data`, `fsdp` and `expert` (parallel.sharding.axis_rules)."""
    mesh, rows = config.mesh, config.scale.batch // config.compute.microbatches
    fixed = mesh.fsdp * mesh.expert
    return {
        data * fixed * mesh.tensor * mesh.context: dataclasses.replace(mesh, data=data)
        for data in range(1, rows // fixed + 1)
        if rows % (data * fixed) == 0
    }


def device_bytes(facts: Facts, mesh: MeshConfig) -> float:
    """Return the memory of one device in bytes. `fsdp` and `tensor` split the state; `data`, `fsdp`, `expert`
    and `context` split the tokens. The splits of activations by `tensor` and of weights by `expert` are
    ignored, so the result is rather too large."""
    tokens = mesh.data * mesh.fsdp * mesh.expert * mesh.context
    return facts.state_bytes / (mesh.fsdp * mesh.tensor) + facts.activation_bytes / tokens


def disk_bytes(run: Run) -> float:
    """Return the most bytes that a run leaves on disk: its checkpoints, without gradients, and its curve."""
    keep, steps, forks = run.config.checkpoint, run.facts.steps, len(run.config.schedule.branches)
    count = min(keep.keep_last, steps // keep.every + 1)
    count += steps // keep.keep_every if keep.keep_every else 0
    checkpoint = run.facts.state_bytes - 4 * run.facts.parameters
    return (count + 2 * forks) * checkpoint + ROW_BYTES * steps


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine_kind(platform: str) -> str:
    """Return the kind of machine that a rate holds for: the platform, or the CPU model and core count."""
    return f"{_cpu_model()} x {cpu_cores()}" if platform == "cpu" else platform


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
