"""Rounds of runs on the same chips, where runs outnumber fast domains."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from harness.plan.allocation.allocated_run import AllocatedRun, Block, PlaceBlock, flatten_blocks
from harness.plan.cluster.clusters import Partition
from harness.plan.cost_model.layouts import divisors


def schedule_rounds(blocks: Sequence[Block], part: Partition, find: PlaceBlock) -> list[AllocatedRun]:
    """Place every run on equally many chips: a part of a fast domain, or some domains. Of these sizes, choose
    the one with which most runs fit, and then the last run ends first."""
    domain = part.links.scale_up_domain
    sizes = [size for size in divisors(domain) if size <= part.chips]
    sizes += [domain * count for count in divisors(part.chips // domain)[1:]]
    candidates = [([find(block, part, size) for block in blocks], part.chips // size) for size in sizes]
    schedules = [_assign_slots(runs, slots) for runs, slots in candidates]

    def rank(runs: Sequence[AllocatedRun]) -> tuple[int, float]:
        return sum(run.prediction is None for run in runs), max(run.start_days + run.days for run in runs)

    return min(schedules, key=rank)


def _assign_slots(blocks: Sequence[Sequence[AllocatedRun]], slots: int) -> list[AllocatedRun]:
    """Place the longest block first, each run on the slot that is free first."""
    free = [(0.0, slot) for slot in range(slots)]
    queued = []
    for member in flatten_blocks(sorted(blocks, key=lambda block: -max(member.days for member in block))):
        start, slot = heapq.heappop(free)
        queued.append(dataclasses.replace(member, slot=slot, start_days=start))
        heapq.heappush(free, (start + member.days, slot))
    return queued
