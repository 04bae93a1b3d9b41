"""What an engine is told of a sweep: who shares a worker, what it is given, and how many work at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.config.schema.engine import EngineConfig, Isolation
from harness.config.worker_options import to_env
from harness.core.cpu_flags import cpu_profile
from harness.core.host_memory import free_memory
from harness.launcher.engines.engine_api import Order
from harness.launcher.runs import Block, Run
from harness.launcher.workers.supervisor import Assignment, terms_of
from harness.records.paths import SweepDir


def assignments(blocks: Sequence[Block], settings: EngineConfig, workers: int) -> list[Assignment]:
    """Who shares a worker."""
    if settings.isolation is Isolation.run or settings.processes > 1:
        return [Assignment(run.name, [run], run.devices) for block in blocks for run in block.runs]
    widths = [sum(run.devices for run in block.runs) for block in blocks]
    if settings.isolation is Isolation.block:
        return [
            Assignment(block.name, [*block.runs], width) for block, width in zip(blocks, widths, strict=True)
        ]
    runs = [run for block in blocks for run in block.runs]
    devices = max(settings.devices, *widths) if settings.devices else sum(sorted(widths)[-workers:])
    return [Assignment("all", runs, devices)] if runs else []


def order_of(sweep: SweepDir, assignment: Assignment) -> Order:
    """The worker of an assignment, which speaks into a log of the sweep's."""
    config = assignment.runs[0].config
    each = assignment.devices // config.engine.processes
    env = cpu_profile(each) if config.cluster.platform == "cpu" else {}
    env |= to_env(terms_of(config.engine, assignment.failures, assignment.devices))
    paths = tuple(run.dir.path for run in assignment.runs)
    log = sweep.worker_log(assignment.name.replace("/", "-"))
    return Order(
        assignment.name,
        paths,
        env,
        log,
        devices=assignment.devices,
        platform=config.cluster.platform,
        processes=config.engine.processes,
    )


def files(runs: Sequence[Run]) -> list[Path]:
    """What workers read that does not come with the harness."""
    sources = {each.path for run in runs for each in run.config.data.sources.values()}
    names = sources | {run.config.data.tokenizer for run in runs}
    return [Path(name) for name in sorted(names) if Path(name).exists()]


def workers_at_a_time(settings: EngineConfig, blocks: Sequence[Block]) -> int:
    """As configured, or one a core as far as memory carries the largest of them. Where they share the
    devices of a placement, or a scheduler gives each its own, that is what limits them."""
    if settings.workers:
        return settings.workers
    if settings.devices or settings.name != "local":
        return sum(len(block.runs) for block in blocks)
    need = max(_memory(block) for block in blocks)
    fit = int(free_memory() * 0.8 // need)
    return max(1, min(len(os.sched_getaffinity(0)), fit))


def _memory(block: Block) -> float:
    """Bytes of a worker: an interpreter with its libraries, and what its runs hold."""
    return 6e8 + sum(run.facts.state_bytes + run.facts.activation_bytes for run in block.runs)
