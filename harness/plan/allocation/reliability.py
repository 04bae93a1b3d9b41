"""Cost of failures: interruptions, the best interval between saves, and goodput. Hours, and shares of 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.estimate.clusters import Cluster, Partition

SAVE_PAUSE_HOURS = 15 / 3600
"""Hours that a save stops training for beside its bytes: to agree on a step and to copy. Assumed."""
SPARE_SHARE = 0.02
"""Share of the chips that stay idle and warm to replace failed ones. Assumed."""
WARM_RESTART_SHARE = 0.3
"""Share of a restart that is left if no chip has to be exchanged first: start and load. Assumed."""
NEIGHBOUR_SAVE_HOURS = 2 / 3600
"""Hours that a save into a neighbour's memory takes (as Gemini, doi:10.1145/3600006.3613145). Assumed."""
REGROUP_HOURS = 1 / 60
"""Hours that copies of the model need to go on without one of them. Assumed."""


@dataclass(frozen=True)
class RecoveryCosts:
    """Costs of one way to recover from an interruption."""

    name: str
    save_hours: float
    """Hours that a save stops training for."""
    restart_hours: float
    """Hours from an interruption to the next step."""
    idle_share: float = 0.0
    """Share of the chips that does not train."""


@dataclass(frozen=True)
class RecoveryOption:
    """A way to recover on a given number of chips, with its best interval between saves."""

    name: str
    save_minutes: float
    """Minutes between saves (Daly, 2006), which `goodput` counts with."""
    save_minutes_young: float
    """Minutes between saves (Young, 1974)."""
    goodput: float
    """Share of the time that trains and is not lost again; 0: no training is left."""


def young_interval(save: float, mtbf: float) -> float:
    """Return the hours between saves that cost least to first order: sqrt(2 C M) (Young, CACM 17(9) 1974)."""
    return math.sqrt(2 * save * mtbf)


def daly_interval(save: float, mtbf: float) -> float:
    """Return the hours between saves to higher order (Daly, Future Gener. Comput. Syst. 22(3), 2006, equation
    37); the mean time between interruptions itself if a save takes twice as long."""
    if save >= 2 * mtbf:
        return mtbf
    part = save / (2 * mtbf)
    return young_interval(save, mtbf) * (1 + math.sqrt(part) / 3 + part / 9) - save


def goodput(recovery: RecoveryCosts, mtbf: float, interval: float | None = None) -> float:
    """Return 1 - C/tau - (tau/2 + R)/M of the chips that train. It is 0 where that is not positive: then the
    next interruption mostly comes before a restart has paid off, and no plan should rest on it. `interval`:
    hours between saves (default: Daly's)."""
    tau = interval or daly_interval(recovery.save_hours, mtbf)
    share = 1 - recovery.save_hours / tau - (tau / 2 + recovery.restart_hours) / mtbf
    return max(0.0, share) * (1 - recovery.idle_share)


def recovery_options(
    cluster: Cluster, part: Partition, chips: int, device_bytes: float, copies: int
) -> tuple[RecoveryOption, ...]:
    """Return the recovery options, each with what the one before has: restarts from disk; spares; saves in
    neighbours' memory; and, with several copies of the model, training on without the failed copy until a
    spare has replaced it. Each copy saves its part of what all have.

    `device_bytes`: state of one chip. `copies`: copies of the whole model (axis data).
    """
    disk = device_bytes / copies / cluster.checkpoint_bandwidth / 3600
    restart = cluster.restart_hours + disk
    memory_restart = cluster.restart_hours * WARM_RESTART_SHARE
    mtbf = part.mtbf_hours(chips)
    recoveries = [
        RecoveryCosts("full restarts", disk + SAVE_PAUSE_HOURS, restart),
        RecoveryCosts("spares", disk + SAVE_PAUSE_HOURS, memory_restart + disk, SPARE_SHARE),
        RecoveryCosts("spares, saves in memory", NEIGHBOUR_SAVE_HOURS, memory_restart, SPARE_SHARE),
    ]
    if copies > 1:
        idle_share = min(1.0, SPARE_SHARE + memory_restart / mtbf / copies)
        name = "elastic, spares, saves in memory"
        recoveries.append(RecoveryCosts(name, NEIGHBOUR_SAVE_HOURS, REGROUP_HOURS, idle_share))
    options = []
    for recovery in recoveries:
        save, share = recovery.save_hours, goodput(recovery, mtbf)
        minutes = 60 * daly_interval(save, mtbf), 60 * young_interval(save, mtbf)
        options.append(RecoveryOption(recovery.name, *minutes, share))
    return tuple(options)
