"""More runs than fast domains: as many as there is room for train at a time, the others wait."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from harness.plan.allocation.allocated_run import (
    AllocatedRun,
    Block,
    PlaceBlock,
    flatten_blocks,
    predicted_days,
)
from harness.plan.cluster.clusters import Partition
from harness.plan.cost_model.layouts import divisors


def schedule_rounds(blocks: Sequence[Block], part: Partition, find: PlaceBlock) -> list[AllocatedRun]:
    """Every run on equally many chips, a part of a fast domain or some of them; of all such sizes the one
    with which most runs fit, and then the last ends first."""
    domain = part.links.scale_up_domain
    sizes = [size for size in divisors(domain) if size <= part.chips]
    sizes += [domain * count for count in divisors(part.chips // domain)[1:]]
    schedules = [
        _assign_slots([find(block, part, size) for block in blocks], part.chips // size) for size in sizes
    ]
    return min(schedules, key=lambda runs: (sum(run.prediction is None for run in runs), _last_end(runs)))


def _assign_slots(blocks: Sequence[Sequence[AllocatedRun]], slots: int) -> list[AllocatedRun]:
    """The longest block first, each run on the slot that is free first."""
    free = [(0.0, slot) for slot in range(slots)]
    queued = []
    for member in flatten_blocks(sorted(blocks, key=lambda block: -max(map(predicted_days, block)))):
        start, slot = heapq.heappop(free)
        queued.append(dataclasses.replace(member, slot=slot, start_days=start))
        heapq.heappush(free, (start + predicted_days(member), slot))
    return queued


def _last_end(members: Sequence[AllocatedRun]) -> float:
    """Days until the last has ended."""
    return max(member.start_days + predicted_days(member) for member in members)
