"""A machine of several kinds of chips, used as if it were of one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.plan.cluster.clusters import Chip, Cluster, Links, Partition
from harness.plan.cost_model.chip_efficiency import efficiency


@dataclass(frozen=True)
class Mixing:
    """What running one job over chips of several kinds costs in products alone."""

    efficiency: float
    """min C / mean C: with equal work for each, the slowest chip sets the pace."""
    won_back: float
    """Factor by which jobs of one kind each are faster in sum: 1 / efficiency."""


def speed(chip: Chip, precision: str) -> float:
    """FLOP/s that large products reach."""
    return chip.peak(precision) * efficiency(chip.name).dense


def mixing(cluster: Cluster, precision: str = "bf16") -> Mixing:
    """By what large products reach on each kind; memory and links are in `as_one`."""
    speeds = [(part.chips, speed(part.chip, precision)) for part in cluster.partitions]
    mean = sum(chips * each for chips, each in speeds) / cluster.chips
    share = min(each for _, each in speeds) / mean
    return Mixing(share, 1 / share)


def as_one(cluster: Cluster) -> Cluster:
    """The machine with all its chips as one kind: every number is that of the worst, since each gets equal
    work. What is planned on it is what mixing comes to."""
    parts = cluster.partitions
    slowest = min(parts, key=lambda part: speed(part.chip, "bf16"))
    shared = set.intersection(*(set(part.chip.peaks) for part in parts))
    chip = Chip(
        slowest.chip.name,
        min(part.chip.memory for part in parts),
        min(part.chip.memory_bandwidth for part in parts),
        {name: min(part.chip.peaks[name] for part in parts) for name in sorted(shared)},
    )
    links = Links(
        min(part.links.fast_domain for part in parts),
        min(part.links.fast for part in parts),
        min(part.links.slow for part in parts),
    )
    failures = sum(part.chips / part.device_years for part in parts)
    watts = sum(part.watts * part.chips for part in parts) / cluster.chips
    mixed = Partition("mixed", chip, links, cluster.chips, watts, cluster.chips / failures)
    return dataclasses.replace(cluster, partitions=(mixed,))
