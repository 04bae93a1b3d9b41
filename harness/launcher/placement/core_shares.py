"""Cores of this machine for workers that simulate their devices there.

More lanes at work than cores share caches and the lock of an interpreter, and the same work takes half again
as much time. So the runs of such a worker take turns on its cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.config.schema.engine import Isolation
from harness.config.schema.run import Config
from harness.core.host_memory import free_memory
from harness.launcher.cost.device_room import run_bytes
from harness.launcher.cost.step_cost import cpu_cores
from harness.launcher.placement.list_scheduling import BlockJob, pack
from harness.launcher.runs import Block, Run


@dataclass(frozen=True)
class CoreShare:
    """Cores of one worker, and the devices that it simulates on them."""

    cores: int
    devices: int


def takes_turns(config: Config) -> bool:
    """Return whether a run starts as soon as its worker has devices for it, not together with its block: on
    simulated devices of this machine, unless `engine.devices` names their number."""
    engine = config.engine
    return engine.name == "local" and config.cluster.platform == "cpu" and not engine.devices


def grouped_by_worker(blocks: Sequence[Block]) -> list[Block]:
    """Return the runs of each worker, as `engine.isolation` and `engine.processes` say."""
    engine = blocks[0].runs[0].config.engine
    if engine.isolation is Isolation.run or engine.processes > 1:
        return [Block(run.name, (run,)) for block in blocks for run in block.runs]
    if engine.isolation is Isolation.all:
        return [Block("all", tuple(run for block in blocks for run in block.runs))]
    return [*blocks]


def share_cores(groups: Sequence[Block], workers: int) -> list[CoreShare]:
    """Return the share of each worker, of which `workers` run at a time, the earlier ones first. Those of the
    last round, if it is not a full one, have all cores among them, since all others are about to end."""
    cores = _divide(cpu_cores(), len(groups), workers)
    lanes = _divide(lanes_at_once([run for group in groups for run in group.runs]), len(groups), workers)
    return [CoreShare(c, _devices(group, c, n)) for group, c, n in zip(groups, cores, lanes, strict=True)]


def lanes_at_once(runs: Sequence[Run]) -> int:
    """Return the number of runs that this machine trains at a time: each has a core for each of its devices,
    and there is memory for a worker with it."""
    need = max(run_bytes(run) * run.devices for run in runs)
    fit = int(free_memory() * 0.8 // (6e8 + need))  # an interpreter with its libraries takes 600 MB
    return max(1, min(cpu_cores() // max(run.devices for run in runs), fit))


def _divide(total: int, groups: int, workers: int) -> list[int]:
    """Divide what this machine has among the workers of each round, at least 1 for each."""
    last_round = groups if groups <= workers else groups % workers
    counts = [max(1, total // workers)] * (groups - last_round)
    return counts + [max(1, total // last_round + (i < total % last_round)) for i in range(last_round)]


def _devices(group: Block, cores: int, lanes: int) -> int:
    """Return a device a core, for no more runs at a time than `lanes`, and enough for the widest run."""
    widths = [run.devices for run in group.runs]
    return max([*widths, min(cores, lanes * max(widths), sum(widths))])


def seconds_in_turn(runs: Sequence[Run], seconds: Mapping[str, float], devices: int) -> float:
    """Return the seconds of a worker that trains `runs` on `devices` devices in turn, from those of each."""
    jobs = [BlockJob(run.devices, (seconds[run.name],)) for run in runs]
    slots = pack(devices, jobs)
    return max(slot.start + job.seconds[0] for slot, job in zip(slots, jobs, strict=True))
