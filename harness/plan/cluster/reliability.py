"""What failures cost: how often a run is interrupted, how often it should save, and what share of the time is
training. Hours, and shares of 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.plan.cluster.clusters import Cluster, Partition

PAUSE = 15 / 3600
"""What a save stops training for beside its bytes, in hours: to agree on a step and to copy. Assumed."""
SPARE_SHARE = 0.02
"""Of the chips, kept idle and warm to take the place of what fails. Assumed."""
WARM = 0.3
"""Of a restart, what is left where nothing has to be exchanged first: start and load. Assumed."""
NEIGHBOUR = 2 / 3600
"""Hours that a save into a neighbour's memory takes (as Gemini, doi:10.1145/3600006.3613145). Assumed."""
REGROUP = 1 / 60
"""Hours that copies of the model need to go on without one of them. Assumed."""


@dataclass(frozen=True)
class Recovery:
    """One way to go on after an interruption."""

    name: str
    save: float
    """Hours that a save stops training for."""
    restart: float
    """Hours from an interruption to the next step."""
    idle: float = 0.0
    """Share of the chips that does not train."""


@dataclass(frozen=True)
class Outlook:
    """One way to recover, on so many chips."""

    recovery: Recovery
    mtbf: float
    """Mean hours between interruptions."""
    young: float
    """Hours between saves, Young 1974."""
    daly: float
    """The same, Daly 2006: what is planned with."""
    goodput: float
    """Share of the time that trains and is not lost again; 0: none."""

    @property
    def feasible(self) -> bool:
        return self.goodput > 0


def young(save: float, mtbf: float) -> float:
    """Hours between saves that cost least to first order: sqrt(2 C M) (Young, Commun. ACM 17(9), 1974)."""
    return math.sqrt(2 * save * mtbf)


def daly(save: float, mtbf: float) -> float:
    """The same to higher order (Daly, Future Gener. Comput. Syst. 22(3), 2006, equation 37); the mean time
    between interruptions itself where a save takes twice as long."""
    if save >= 2 * mtbf:
        return mtbf
    part = save / (2 * mtbf)
    return young(save, mtbf) * (1 + math.sqrt(part) / 3 + part / 9) - save


def goodput(recovery: Recovery, mtbf: float, interval: float | None = None) -> float:
    """1 - C/tau - (tau/2 + R)/M, of the chips that train; 0 where that is not positive: then the next
    interruption mostly comes before a restart has paid off, and no plan should rest on it.

    `interval`: hours between saves (default: Daly's).
    """
    tau = interval or daly(recovery.save, mtbf)
    kept = 1 - recovery.save / tau - (tau / 2 + recovery.restart) / mtbf
    return max(0.0, kept) * (1 - recovery.idle)


def outlook(recovery: Recovery, mtbf: float) -> Outlook:
    save = recovery.save
    return Outlook(recovery, mtbf, young(save, mtbf), daly(save, mtbf), goodput(recovery, mtbf))


def outlooks(
    cluster: Cluster, part: Partition, chips: int, device_bytes: float, copies: int
) -> tuple[Outlook, ...]:
    """Ways to recover, each with what the one before has: all from disk; spares; saves in neighbours' memory;
    going on without the copy of the model that failed, until a spare has taken its place (where there are
    several). Each copy saves its part of what all have.

    `device_bytes`: state of one chip. `copies`: of the whole model (axis data).
    """
    disk = device_bytes / copies / cluster.checkpoint_bandwidth / 3600
    restart = cluster.restart_hours + disk
    warm = cluster.restart_hours * WARM + disk
    near = cluster.restart_hours * WARM
    mtbf = part.mtbf_hours(chips)
    ways = [
        Recovery("full restarts", disk + PAUSE, restart),
        Recovery("spares", disk + PAUSE, warm, SPARE_SHARE),
        Recovery("spares, saves in memory", NEIGHBOUR, near, SPARE_SHARE),
    ]
    if copies > 1:
        out = min(1.0, SPARE_SHARE + near / mtbf / copies)
        ways.append(Recovery("elastic, spares, saves in memory", NEIGHBOUR, REGROUP, out))
    return tuple(outlook(way, mtbf) for way in ways)


def best(ways: tuple[Outlook, ...]) -> Outlook:
    return max(ways, key=lambda way: way.goodput)


def interruptions(days: float, mtbf: float) -> float:
    """Expected in so many days."""
    return days * 24 / mtbf
