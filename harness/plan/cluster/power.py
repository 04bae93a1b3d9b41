"""Power and energy of chips at the meter."""

from __future__ import annotations

from harness.plan.cluster.clusters import Cluster, Partition


def meter_watts(cluster: Cluster, part: Partition, chips: int) -> float:
    """Return the watts of some chips of one kind under load, with hosts, switches and cooling."""
    return part.watts * chips * cluster.power_overhead


def machine_watts(cluster: Cluster) -> float:
    """Return the watts of every chip of every kind under load, with hosts, switches and cooling."""
    return sum(part.watts * part.chips for part in cluster.partitions) * cluster.power_overhead


def gigawatt_hours(watts: float, days: float) -> float:
    """Return the energy of `days`, training or not: a chip that waits for a restart counts in full."""
    return watts * days * 24 / 1e9
