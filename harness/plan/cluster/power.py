"""What a plan draws: megawatts and gigawatt-hours at the meter."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.cluster.clusters import Cluster, Partition


@dataclass(frozen=True)
class Draw:
    """Of some chips under load, with hosts, switches and cooling."""

    watts: float
    site_watts: float | None
    """What the site can draw; None: not known."""

    @property
    def possible(self) -> bool:
        return self.site_watts is None or self.watts <= self.site_watts

    def gigawatt_hours(self, days: float) -> float:
        """Of so many days, training or not: a chip that waits for a restart is counted in full."""
        return self.watts * days * 24 / 1e9


def draw(cluster: Cluster, part: Partition, chips: int) -> Draw:
    return Draw(part.watts * chips * cluster.power_overhead, cluster.site_watts)


def whole_draw(cluster: Cluster) -> Draw:
    """Of every chip of every kind."""
    watts = sum(part.watts * part.chips for part in cluster.partitions)
    return Draw(watts * cluster.power_overhead, cluster.site_watts)


def chips_within_power(cluster: Cluster, part: Partition) -> int:
    """Chips of this kind alone that the site can feed."""
    if cluster.site_watts is None:
        return part.chips
    return min(part.chips, int(cluster.site_watts / (part.watts * cluster.power_overhead)))
