"""Shares of one machine for several runs, and rounds where runs outnumber fast domains."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from itertools import product

from harness.core.errors import UserError
from harness.estimate.chip_efficiency import matmul_flops_per_second
from harness.estimate.clusters import Cluster, Partition
from harness.estimate.layouts import divisors
from harness.estimate.model_size import ModelShape
from harness.plan.allocation.allocated_run import (
    AllocatedRun,
    Block,
    LayoutFinder,
    PlaceBlock,
    allocation_rank,
    flatten_blocks,
    makespan,
)

ROUNDS = 3
"""Number of times that shares are computed again from the days of the last allocation."""
REFUSED_GROWTH = 1.5
"""Factor by which the share of a run that does not fit grows in the next round."""
MAX_ASSIGNMENTS = 20_000
"""Number of assignments of blocks to kinds up to which all are tried."""


def allocate_chips(
    models: Sequence[ModelShape], cluster: Cluster, *, shares: Mapping[str, float] | None = None
) -> list[AllocatedRun]:
    """Return the chips of each run so that all end together, or by given shares of the machine (by name; they
    need not sum to 1). Every run gets chips of one kind; runs of a block get equally many, and one layout.
    Runs that outnumber fast domains train in rounds.

    Raises UserError for a model without a token budget, or given shares with fewer fast domains than runs.
    """
    _check_models(models, shares)
    groups: dict[str, Block] = {}
    for model in models:
        groups.setdefault(model.block or f"{model.name} alone", []).append(model)
    blocks = list(groups.values())
    budgets = {model.name: model.flops_per_token * (model.tokens or 0) for model in models}
    needs = [max((shares or budgets)[model.name] for model in block) for block in blocks]
    kinds = _assign_kinds(blocks, needs, cluster)
    find = LayoutFinder(cluster)
    members: list[AllocatedRun] = []
    for kind, part in enumerate(cluster.partitions):
        indices = [index for index, block_kind in enumerate(kinds) if block_kind == kind]
        kind_blocks, kind_needs = [blocks[i] for i in indices], [needs[i] for i in indices]
        members += _allocate_partition(kind_blocks, kind_needs, part, find, fixed=shares is not None)
    order = {model.name: index for index, model in enumerate(models)}
    return sorted(members, key=lambda member: order[member.model.name])


def _check_models(models: Sequence[ModelShape], shares: Mapping[str, float] | None) -> None:
    names = [model.name for model in models]
    if len({*names}) < len(names):
        raise UserError(f"runs are named {', '.join(names)}. Give each a name of its own.")
    for model in models:
        if shares is None and model.tokens is None:
            raise UserError(f"{model.name} has no token budget. Set scale.tokens, or give shares.")
        if shares is not None and not shares.get(model.name, 0) > 0:
            share = shares.get(model.name)
            raise UserError(f"shares.{model.name}={share}: give each of {', '.join(names)} a share above 0.")


def _assign_kinds(blocks: Sequence[Block], needs: Sequence[float], cluster: Cluster) -> tuple[int, ...]:
    """Return the kind of each block so that the kind that ends last ends first. All assignments are tried up
    to MAX_ASSIGNMENTS; beyond, the largest block goes first, to where it ends soonest."""
    parts, loads = cluster.partitions, []
    for need, block in zip(needs, blocks, strict=True):
        dtype, work = block[0].precision.matmul_dtype, need * len(block)
        loads.append([work / (part.chips * matmul_flops_per_second(part.chip, dtype)) for part in parts])
    if len(parts) ** len(blocks) > MAX_ASSIGNMENTS:
        return _assign_largest_first(loads)

    def last_end(kinds: tuple[int, ...]) -> float:
        sums = [0.0] * len(parts)
        for kind, load in zip(kinds, loads, strict=True):
            sums[kind] += load[kind]
        return max(sums)

    return min(product(range(len(parts)), repeat=len(blocks)), key=last_end)


def _assign_largest_first(loads: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the kind of each block. `loads`: work of each block on each kind."""
    sums, kinds = [0.0] * len(loads[0]), [0] * len(loads)
    for index in sorted(range(len(loads)), key=lambda i: -min(loads[i])):
        ends = [busy + load for busy, load in zip(sums, loads[index], strict=True)]
        kinds[index] = ends.index(min(ends))
        sums[kinds[index]] = min(ends)
    return tuple(kinds)


def _allocate_partition(
    blocks: Sequence[Block], needs: Sequence[float], part: Partition, find: PlaceBlock, *, fixed: bool
) -> list[AllocatedRun]:
    """Place blocks on chips of one kind. The need of a run is computed again from how long it would take with
    its last share; the round that ends first counts."""
    if not blocks:
        return []
    if sum(map(len, blocks)) > part.chips // part.links.scale_up_domain and not fixed:
        return schedule_rounds(blocks, part, find)
    sizes, rounds = [len(block) for block in blocks], []
    for _ in range(1 if fixed else ROUNDS):
        chips = allocate_domains(needs, sizes, part.chips, part.links.scale_up_domain)
        rounds.append([find(block, part, count) for block, count in zip(blocks, chips, strict=True)])
        needs = [max(map(_chip_days, block)) for block in rounds[-1]]
    best = min(rounds, key=allocation_rank)
    return flatten_blocks(best if fixed else _reassign_unused(best, part, find))


def _reassign_unused(
    blocks: list[list[AllocatedRun]], part: Partition, find: PlaceBlock
) -> list[list[AllocatedRun]]:
    """Give chips that runs cannot use to the block that ends last, as long as it then ends sooner."""
    domain = part.links.scale_up_domain
    for _ in range(ROUNDS):
        used = [max(_used_chips(member, domain) for member in block) for block in blocks]
        in_use = sum(chips * len(block) for chips, block in zip(used, blocks, strict=True))
        left = part.chips // domain * domain - in_use
        last = max(range(len(blocks)), key=lambda index: makespan(blocks[index]))
        chips_with_unused = used[last] + left // len(blocks[last]) // domain * domain
        longer = find([member.model for member in blocks[last]], part, chips_with_unused)
        if allocation_rank([longer]) >= allocation_rank([blocks[last]]):
            break
        pairs = zip(used, blocks, strict=True)
        blocks = [[dataclasses.replace(member, chips=chips) for member in block] for chips, block in pairs]
        blocks[last] = longer
    return blocks


def _used_chips(member: AllocatedRun, domain: int) -> int:
    """Return the chips of the fast domains that a run can use."""
    return -(-(member.prediction.devices if member.prediction else member.chips) // domain) * domain


def _chip_days(member: AllocatedRun) -> float:
    """Return the chip-days of a run on the chips that it can use; if it fits nowhere, more than it had."""
    if member.prediction is None:
        return REFUSED_GROWTH * member.chips
    return member.prediction.devices * (member.days or 1.0)


def allocate_domains(needs: Sequence[float], sizes: Sequence[int], chips: int, domain: int) -> list[int]:
    """Return the chips of one run of each block, in proportion to its need: whole fast domains, at least one,
    largest remainders first. `sizes`: runs of each block. Raises UserError if domains do not suffice."""
    domains = chips // domain
    if domains < sum(sizes):
        raise UserError(
            f"{sum(sizes)} runs need a fast domain of {domain} chips each, but there are {domains}. Plan"
            " fewer runs at a time, or a larger cluster."
        )
    spare = domains - sum(sizes)
    total = sum(need * size for need, size in zip(needs, sizes, strict=True))
    wanted_extra = [max(0.0, need / total * domains - 1) for need in needs]
    total_extra = sum(want * size for want, size in zip(wanted_extra, sizes, strict=True))
    scale = spare / total_extra if total_extra else 0.0
    extra = [math.floor(want * scale) for want in wanted_extra]
    for index in sorted(range(len(needs)), key=lambda i: extra[i] - wanted_extra[i] * scale):
        left = spare - sum(count * size for count, size in zip(extra, sizes, strict=True))
        extra[index] += sizes[index] <= left
    return [(1 + count) * domain for count in extra]


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
