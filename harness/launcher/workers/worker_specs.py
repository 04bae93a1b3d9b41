"""Worker specs of a sweep: which runs share a worker, its environment, and the number of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness.config.schema.engine import EngineConfig, Isolation
from harness.config.schema.run import Config
from harness.config.worker_options import to_env
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.jax_variables import POOL_VARIABLE
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.local.host_devices import VARIABLES, find_devices
from harness.launcher.placement.core_shares import grouped_by_worker, lanes_at_once, share_cores, takes_turns
from harness.launcher.runs import Block, Run
from harness.launcher.workers.supervisor import Assignment, worker_options
from harness.records.paths import SweepDir


def assign_runs(blocks: Sequence[Block], settings: EngineConfig, workers: int) -> list[Assignment]:
    """Group runs into workers as `engine.isolation` says. `workers`: number of workers at a time."""
    if blocks and takes_turns(blocks[0].runs[0].config):
        groups = grouped_by_worker(blocks)
        shares = zip(groups, share_cores(groups, workers), strict=True)
        return [Assignment(g.name, [*g.runs], share.devices, cores=share.cores) for g, share in shares]
    if settings.isolation is Isolation.run or settings.processes > 1:
        return [Assignment(run.name, [run], run.devices) for block in blocks for run in block.runs]
    widths = [sum(run.devices for run in block.runs) for block in blocks]
    if settings.isolation is Isolation.block:
        pairs = zip(blocks, widths, strict=True)
        return [Assignment(block.name, [*block.runs], width) for block, width in pairs]
    runs = [run for block in blocks for run in block.runs]
    devices = max(settings.devices, *widths) if settings.devices else sum(sorted(widths)[-workers:])
    return [Assignment("all", runs, devices)] if runs else []


def worker_spec(sweep: SweepDir, assignment: Assignment) -> WorkerSpec:
    """Build the spec of an assignment's worker, with its log in the sweep."""
    config = assignment.runs[0].config
    devices = assignment.devices // config.engine.processes
    env = cpu_env(devices) if config.cluster.platform == "cpu" else {}
    if assignment.cores:
        env |= {POOL_VARIABLE: str(assignment.cores)}
    options = worker_options(config.engine, assignment.failures, assignment.devices)
    env |= to_env(dataclasses.replace(options, side_by_side=not takes_turns(config)))
    paths = tuple(run.dir.path for run in assignment.runs)
    log = sweep.worker_log(assignment.name.replace("/", "-"))
    return WorkerSpec(
        *(assignment.name, paths, env, log),
        devices=assignment.devices,
        platform=config.cluster.platform,
        processes=config.engine.processes,
    )


def input_files(runs: Sequence[Run]) -> list[Path]:
    """Return the existing data files and tokenizers that the runs read."""
    sources = {source.path for run in runs for source in run.config.data.sources.values()}
    sets = {node.path for run in runs for node in run.config.evaluation.sets.values()}
    names = sources | sets | {run.config.data.tokenizer for run in runs}
    return [Path(name) for name in sorted(names) if Path(name).exists()]


def shared_devices(settings: EngineConfig, blocks: Sequence[Block]) -> int:
    """Return the number of devices that the workers share; 0: each has its own. Local workers on accelerators
    share those of this host. Raises UserError if there are fewer than `engine.devices`."""
    config = blocks[0].runs[0].config
    platform = config.cluster.platform
    one_takes_all = settings.isolation is Isolation.all and platform not in VARIABLES
    if settings.name != "local" or platform == "cpu" or one_takes_all:
        return settings.devices
    try:
        devices = find_devices(platform)
    except UserError:
        if settings.dry_run:  # a plan may be made where there is no accelerator
            return settings.devices or described_chips(config)
        raise
    if settings.devices > len(devices):
        raise UserError(
            f"engine.devices={settings.devices}, but this host shows {len(devices)} {platform} "
            f"device{'s' * (len(devices) > 1)} ({devices.origin}). Use at most as many, or "
            "engine=slurm or engine=ray for several hosts."
        )
    return settings.devices or len(devices)


def described_chips(config: Config) -> int:
    """Return the number of chips of the cluster that the config describes; 0: it describes none."""
    return sum(kind.chips or 0 for kind in config.cluster.kinds.values())


def max_workers(settings: EngineConfig, blocks: Sequence[Block]) -> int:
    """Return `engine.workers`, else as many as have a core for each device of their widest run, as far as
    memory allows, or as many as have room on the accelerators. With `engine.devices` or a scheduler, those
    limit the workers, and each run may have its own."""
    devices = shared_devices(settings, blocks)
    if settings.workers:
        return settings.workers
    if settings.devices or settings.name != "local":
        return sum(len(block.runs) for block in blocks)
    if devices:
        widths = [sum(run.devices for run in block.runs) for block in blocks]
        if settings.isolation is Isolation.run:
            widths = [run.devices for block in blocks for run in block.runs]
        return max(1, devices // max(widths))
    runs = [run for block in blocks for run in block.runs]
    return min(lanes_at_once(runs), len(grouped_by_worker(blocks)))
