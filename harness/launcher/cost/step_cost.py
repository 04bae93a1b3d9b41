"""Predicted time of a run in its lane: that of a reference machine, times a factor for this kind of machine.

The factor is the median of similar earlier runs here (launcher.cost.measurements stores them): similar FLOPs
a step, lane width and oversubscription. Without any, it comes from a calibration of the machine. Time that
neighbours take is left out of what earlier runs tell, and added for those that are there now.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.recipes.durations import evaluation_steps, save_steps
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.hashing import hash_json, to_plain
from harness.estimate.calibration import estimate_step
from harness.estimate.clusters import sole_partition
from harness.estimate.layouts import config_layout
from harness.estimate.model_size import shape_from_facts
from harness.launcher.cost.machine_speed import MachineSpeed
from harness.launcher.cost.reference_machine import startup_seconds, step_rate
from harness.launcher.runs import Run
from harness.records.run.provenance import Facts, code_hash_of

MEASURED, COMPUTED, ASSUMED = "earlier runs on this machine", "computed for its chips", "assumed"
CALIBRATED = "known from a calibration"
"""Labels of the evidence that a prediction for this machine rests on."""
ACCELERATOR_RATE = 1e14
"""FLOP/s of a device that nobody measured and no cluster describes: a third of the bfloat16 peak of a 2023
accelerator."""
ACCELERATOR_STARTUP_SECONDS = {False: 10.0, True: 1.5}
"""Seconds until the first step on such a device, by whether the program was compiled before."""
DEFAULT_SAVE_SECONDS = 0.1
"""Seconds of a checkpoint without a measurement."""
TRAIN_PER_FORWARD = 3.0
"""FLOPs of a training step over those of a forward pass; an evaluation is a forward pass."""
RATE_PER_DOUBLING = 0.97
"""Share of a device's rate that remains when the lane is twice as wide as the measured one."""
DEFAULT_UNCERTAINTY, CALIBRATED_UNCERTAINTY = 4.0, 1.7
"""Factors by which a default may be wrong either way, and one that is scaled by a calibration."""
LOAD_UNCERTAINTY = 0.5
"""Power of the factor by which neighbours slow a run down that is its doubt: they may leave, or more come."""
UNCERTAINTY, UNCERTAINTY_PER_E = 1.1, 1.25
"""Factors by which a measured rate may be wrong, besides its scatter: always, and for each factor e between
the run and the nearest measurement."""
NEIGHBOUR_DISTANCE, MAX_NEIGHBOURS = 0.35, 16
"""Runs that count: no more than this distance (in ln) beyond the nearest one, and the newest of these."""
STEP_ARGUMENTS = ("learning_rate", "b1", "b2", "epsilon", "momentum", "weight_decay", "clip_norm")
"""Numbers of the optimizer that are arguments of the compiled step, unless they are 0."""
SHARED_STATE_PARAMETERS, HOST_DEVICES = 50_000_000, 8
"""Parameters from which on the devices of a host share the state of a run, and the devices of a host."""
DEFAULT_MODEL_WIDTH = 64
"""Width that is assumed of a model without one."""
LEAST_SHARE = 0.1
"""Share of the cores that a run is taken to have had at least, however busy others kept them."""
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
    """FLOP/s of one device that shares its core with no other device of the sweep, or is real."""
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
    layers: int = 0
    """Layers that the program spells out; 0 if an earlier version wrote the observation."""
    model_width: int = 0
    """Width of the model; 0 likewise."""
    data: str = ""
    """Hash of the tokens that the run read (`data_hash`)."""
    busy: float = 0.0
    """Share of all cores that other processes kept busy while it trained."""

    @property
    def slowdown(self) -> float:
        """Factor by which other processes slowed the run down: what they left of the cores that it needs."""
        return max(1.0, min(1.0, self.crowd) / max(LEAST_SHARE, 1 - self.busy))

    @property
    def idle_rate(self) -> float:
        """`rate`, had there been no other processes."""
        return self.rate * self.slowdown


@dataclass(frozen=True)
class LaunchConditions:
    """Conditions of a launch that its predictions take into account besides earlier runs."""

    speed: MachineSpeed | None = None
    """Speed of this machine over that of the reference; None for devices that are real, or elsewhere."""
    demand: float = 0.0
    """Cores that other processes ask for now, over all cores."""
    compiling: frozenset[str] | None = None
    """Names of the runs that are the first with their programs, which others load; None: any may be."""

    def slowdown(self, oversubscription: float) -> float:
        """Return the factor by which other processes slow a sweep down: where they and its lanes ask for more
        cores than there are, each gets its part."""
        return max(1.0, min(1.0, oversubscription) + self.demand)


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
    basis: str = ASSUMED
    """Label of the evidence without earlier runs."""

    @property
    def seconds(self) -> float:
        """Predicted wall seconds of the whole run."""
        return self.train + self.evaluation + self.save + self.startup

    @property
    def evidence(self) -> str:
        """Label of the evidence: MEASURED, COMPUTED, CALIBRATED or ASSUMED."""
        return MEASURED if self.runs else self.basis


def workload_of(config: Config, facts: Facts) -> Workload:
    """Return the work of a run. An evaluation is a forward pass over each data source and set."""
    branches = config.schedule.branches
    steps = facts.steps + sum(round(share * facts.steps * config.schedule.cooldown) for share in branches)
    evaluations = len(evaluation_steps(config)) + len(branches)
    domains = max(1, len(config.data.sources)) + len(config.evaluation.sets)
    tokens = evaluations * config.evaluation.tokens * domains
    return Workload(
        step_flops=facts.executed_flops_per_token * facts.tokens_per_step,
        steps=steps,
        evaluation_flops=tokens * facts.executed_flops_per_token / TRAIN_PER_FORWARD,
        saves=len(save_steps(config)) + 1 + 2 * len(branches),
    )


def estimate_run(
    run: Run,
    width: int,
    oversubscription: float,
    observations: Sequence[Observation],
    conditions: LaunchConditions | None = None,
) -> RunEstimate:
    """Predict the time of a run on `width` devices of a machine with `oversubscription` devices a core: from
    earlier runs here, else as a plan does from the chips that the cluster describes, else from the speed of
    this machine, else from a default."""
    workload, conditions = workload_of(run.config, run.facts), conditions or LaunchConditions()
    near, distance = _nearest(workload, width, oversubscription, observations)
    slowdown = conditions.slowdown(oversubscription) if run.config.cluster.platform == "cpu" else 1.0
    described = None if near or not run.facts.is_known else sole_partition(run.config.cluster)
    if described:
        model = shape_from_facts(run.config, run.facts, run.name)
        step = estimate_step(model, config_layout(run.config), described.chip, described.links)
        rate = workload.step_flops / step.value
        low, high = step.value / step.low, step.high / step.value
    else:
        rates = _device_rates(run, workload, width, near, conditions)
        rate = float(np.median(rates)) * width / max(1.0, oversubscription) / slowdown
        low, high = _uncertainty(rates, distance, calibrated=conditions.speed is not None)
    parts = {
        "train": workload.step_flops * workload.steps / rate,
        "evaluation": workload.evaluation_flops / (rate * _median([o.evaluation for o in near], 1.0)),
        "save": workload.saves * _median([o.save for o in near], DEFAULT_SAVE_SECONDS) * slowdown,
        "startup": _startup_seconds(run, near, observations, conditions) * slowdown,
    }
    total, basis = sum(parts.values()), COMPUTED if described else _default_basis(conditions)
    load_doubt = slowdown**LOAD_UNCERTAINTY
    bounds = {"low": total / low / load_doubt, "high": total * high * load_doubt}
    return RunEstimate(**parts, **bounds, runs=len(near), steps=workload.steps, basis=basis)


def _default_basis(conditions: LaunchConditions) -> str:
    return ASSUMED if conditions.speed is None else CALIBRATED


def _device_rates(
    run: Run, workload: Workload, width: int, near: Sequence[Observation], conditions: LaunchConditions
) -> np.ndarray:
    """Return the FLOP/s of one device without neighbours by each run that counts: the reference machine's for
    a model of this width, times the run's own over the reference's."""
    if run.config.cluster.platform != "cpu":
        rates = [o.rate * RATE_PER_DOUBLING ** math.log2(width / o.width) for o in near]
        return np.array(rates or [ACCELERATOR_RATE])
    model_width = width_of_model(run.facts)
    factors = [
        o.idle_rate
        / step_rate(o.model_width or model_width)
        * RATE_PER_DOUBLING ** math.log2(width / o.width)
        for o in near
    ]
    default = conditions.speed.arithmetic if conditions.speed else 1.0
    return step_rate(model_width) * np.array(factors or [default])


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


def _startup_seconds(
    run: Run, near: Sequence[Observation], observations: Sequence[Observation], conditions: LaunchConditions
) -> float:
    """Return the seconds until the first step, without neighbours: the reference machine's for programs of
    this size, times the factor of earlier runs that compiled, or that loaded, theirs."""
    program = program_hash(run.config)
    loads = any(o.program == program for o in observations)
    loads = loads or (conditions.compiling is not None and run.name not in conditions.compiling)
    similar = [o for o in near if o.warm == loads and o.layers and o.startup is not None]
    similar = similar or [o for o in observations if o.warm == loads and o.layers and o.startup is not None]
    factors = [
        (o.startup or 0.0) / o.slowdown / startup_seconds(o.layers, compiles=not loads) for o in similar
    ]
    if run.config.cluster.platform != "cpu" and not factors:
        return ACCELERATOR_STARTUP_SECONDS[loads]
    default = 1 / conditions.speed.compiling if conditions.speed else 1.0
    return startup_seconds(program_layers(run.facts), compiles=not loads) * _median(factors, default)


def program_layers(facts: Facts) -> int:
    """Return the layers that the program of a run spells out: one where a scan repeats it."""
    return 1 if facts.scanned else max(1, facts.shape.get("layers", 1))


def width_of_model(facts: Facts) -> int:
    """Return the width of a model; a usual small one for a model that has none."""
    return facts.shape.get("width", 0) or DEFAULT_MODEL_WIDTH


def data_hash(config: Config, facts: Facts) -> str:
    """Return the hash of all that decides whether the tokens of a run are in the cache."""
    return hash_json([config.data.tokenizer, sorted(source.content for source in facts.sources.values())])


def program_hash(config: Config) -> str:
    """Return the hash of all that decides whether the compiled steps of a run are in the compile cache. It
    follows training.programs.run_programs."""
    optimizer = {k: bool(v) if k in STEP_ARGUMENTS else v for k, v in to_plain(config.optimizer).items()}
    sizes = [config.scale.parameters, config.scale.batch, config.data.sequence_length, config.mesh]
    nodes = [config.model, config.compute, config.loss, optimizer, sizes]
    return hash_json([*nodes, config.imports, code_hash_of(config)])


def _uncertainty(rates: np.ndarray, distance: float, *, calibrated: bool) -> tuple[float, float]:
    """Return the factors by which a run may be faster, and slower, than at the median rate."""
    if not math.isfinite(distance):
        factor = CALIBRATED_UNCERTAINTY if calibrated else DEFAULT_UNCERTAINTY
        return factor, factor
    slow, middle, fast = np.quantile(rates, (0.1, 0.5, 0.9))
    factor = UNCERTAINTY * UNCERTAINTY_PER_E**distance
    return float(fast / middle * factor), float(middle / slow * factor)


def _median(values: Sequence[float | None], default: float) -> float:
    known_values = [value for value in values if value is not None]
    return float(np.median(known_values)) if known_values else default


def possible_meshes(config: Config) -> dict[int, MeshConfig]:
    """Return every mesh that a run may have, by its number of devices: its own, spread over more of them.
    The sequences of a micro-batch divide over `data`, `fsdp` and `expert` (parallel.sharding.axis_rules). A
    run that has its layout from a plan keeps it."""
    mesh, rows = config.mesh, config.scale.batch // config.compute.microbatches
    if config.engine.plan is not None:
        return {mesh.devices: mesh}
    fixed = mesh.fsdp * mesh.expert
    counts = [count for count in range(1, rows // fixed + 1) if rows % (count * fixed) == 0]
    return {spread.devices: spread for spread in (_spread(config, count) for count in counts)}


def _spread(config: Config, count: int) -> MeshConfig:
    """Return the mesh of a run over `count` times its devices: by `data`, and for a large model whose mesh
    does not set `fsdp` by `fsdp` inside a host, so that its devices share the state."""
    mesh = config.mesh
    if mesh.fsdp > 1 or config.scale.parameters < SHARED_STATE_PARAMETERS:
        return dataclasses.replace(mesh, data=count)
    fsdp = math.gcd(count, HOST_DEVICES)
    return dataclasses.replace(mesh, data=count // fsdp, fsdp=fsdp)


def disk_bytes(run: Run) -> float:
    """Return the most bytes that a run leaves on disk: its checkpoints, without gradients, and its curve."""
    keep, steps, forks = run.config.checkpoint, run.facts.steps, len(run.config.schedule.branches)
    by_clock = keep.every_minutes is not None
    count = keep.keep_last if by_clock else min(keep.keep_last, len(save_steps(run.config)) + 1)
    count += steps // keep.keep_every if keep.keep_every else 0
    checkpoint = run.facts.state_bytes - (run.facts.gradient_bytes or 4 * run.facts.parameters)
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
