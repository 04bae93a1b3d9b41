"""A machine of several kinds of chips, used as if all were of one kind."""

from __future__ import annotations

import dataclasses

from harness.estimate.chip_efficiency import matmul_flops_per_second
from harness.estimate.clusters import Chip, Cluster, Links, Partition


def mixed_efficiency(cluster: Cluster, precision: str = "bf16") -> float:
    """Return min / mean of the FLOP/s that large products reach: the share of its speed that one job over all
    kinds of chips keeps, since the slowest chip sets the pace. For memory and links see `as_single_kind`."""
    speeds = [(part.chips, matmul_flops_per_second(part.chip, precision)) for part in cluster.partitions]
    mean = sum(chips * speed for chips, speed in speeds) / cluster.chips
    return min(speed for _, speed in speeds) / mean


def as_single_kind(cluster: Cluster) -> Cluster:
    """Return the machine with all its chips as one kind: every number is that of the worst kind, since each
    chip gets equal work. A plan on it shows what mixing kinds costs."""
    parts = cluster.partitions
    slowest = min(parts, key=lambda part: matmul_flops_per_second(part.chip, "bf16"))
    precisions = set.intersection(*(set(part.chip.peaks) for part in parts))
    chip = Chip(
        slowest.chip.name,
        min(part.chip.memory for part in parts),
        min(part.chip.memory_bandwidth for part in parts),
        {name: min(part.chip.peaks[name] for part in parts) for name in sorted(precisions)},
    )
    links = Links(
        min(part.links.scale_up_domain for part in parts),
        min(part.links.scale_up for part in parts),
        min(part.links.scale_out for part in parts),
    )
    failures = sum(part.chips / part.mtbf_device_years for part in parts)
    watts = sum(part.watts * part.chips for part in parts) / cluster.chips
    mixed = Partition("mixed", chip, links, cluster.chips, watts, cluster.chips / failures)
    return dataclasses.replace(cluster, partitions=(mixed,))
