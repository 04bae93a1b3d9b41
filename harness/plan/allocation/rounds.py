"""More runs than fast domains: as many as there is room for train at a time, the others wait."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from harness.plan.allocation.allocated_run import Block, Find, Member, days_of, flat
from harness.plan.cluster.clusters import Partition
from harness.plan.cost_model.layouts import divisors


def in_turns(blocks: Sequence[Block], part: Partition, find: Find) -> list[Member]:
    """Every run on equally many chips, a part of a fast domain or some of them; of all such sizes the one
    with which most runs fit, and then the last ends first."""
    domain = part.links.fast_domain
    sizes = [size for size in divisors(domain) if size <= part.chips]
    sizes += [domain * count for count in divisors(part.chips // domain)[1:]]
    placed = [_queued([find(block, part, size) for block in blocks], part.chips // size) for size in sizes]
    return min(placed, key=lambda one: (sum(each.prediction is None for each in one), _end(one)))


def _queued(placed: Sequence[Sequence[Member]], slots: int) -> list[Member]:
    """The longest block first, each run on the slot that is free first."""
    free = [(0.0, slot) for slot in range(slots)]
    queued = []
    for member in flat(sorted(placed, key=lambda block: -max(map(days_of, block)))):
        at, slot = heapq.heappop(free)
        queued.append(dataclasses.replace(member, slot=slot, after=at))
        heapq.heappush(free, (at + days_of(member), slot))
    return queued


def _end(members: Sequence[Member]) -> float:
    """Days until the last has ended."""
    return max(member.after + days_of(member) for member in members)
