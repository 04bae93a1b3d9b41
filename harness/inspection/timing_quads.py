"""Timing pass over quads A B B A: which variant is visited when, for how many steps, and when it is enough.

Every treatment takes turns with the control alone. A visit is a few steps of one variant. The pass begins
with the smallest number of quads a treatment and doubles it until the ratio is known well enough, or until
its time is over. That time is a share of what the training took, so that timing stays cheap beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from harness.compare.stats.speed_up import MIN_QUADS, next_quads, timing_ratio, visit_statistic

VISIT_STEPS, WARMUP_STEPS, MIN_STEPS = 20, 3, 5
"""Timed steps of a visit; untimed ones before them; fewest timed ones where the first quads take too long."""
LIMIT_SECONDS, TRAINING_SHARE = 20.0, 0.02
"""Seconds that a pass may take, or this share of the seconds of the training if that is more. The first quads
are timed in any case."""
Visit = Callable[[str, int], list[float]]
"""Seconds of each timed step of a visit, by variant and number of steps."""
Quads = dict[str, list[list[float]]]
"""Statistics of the visits A B B A by treatment, a list of four a quad."""


def time_limit(training_seconds: float) -> float:
    """Return the seconds that the pass may take, from those that the training of the timed runs took."""
    return max(LIMIT_SECONDS, TRAINING_SHARE * training_seconds)


def visit_steps(pair_seconds: Sequence[float], limit: float) -> int:
    """Return the timed steps of a visit: VISIT_STEPS, or fewer where the first quads would take longer than
    `limit`, but at least MIN_STEPS. pair_seconds: by treatment, those of a step of it and of the control."""
    a_step = 2 * MIN_QUADS * sum(pair_seconds)
    affordable = math.floor(limit / a_step) - WARMUP_STEPS if a_step else VISIT_STEPS
    return max(MIN_STEPS, min(VISIT_STEPS, affordable))


def time_quads(control: str, treatments: Sequence[str], visit: Visit, steps: int, limit: float) -> Quads:
    """Time every treatment against the control and return the statistics of the visits."""
    quads: Quads = {name: [] for name in treatments}
    start = time.perf_counter()
    missing = dict.fromkeys(treatments, MIN_QUADS)
    while missing:
        for name, count in missing.items():
            quads[name] += [_time_quad(control, name, visit, steps) for _ in range(count)]
        missing = _affordable(quads, time.perf_counter() - start, limit)
    return quads


def _time_quad(control: str, treatment: str, visit: Visit, steps: int) -> list[float]:
    order = (control, treatment, treatment, control)
    return [visit_statistic(visit(name, steps)) for name in order]


def _affordable(quads: Mapping[str, list[list[float]]], elapsed: float, limit: float) -> dict[str, int]:
    """Return the quads to add by treatment: those that are still needed, as far as the time left allows."""
    a_quad = elapsed / sum(map(len, quads.values()))
    missing = {name: count for name, rows in quads.items() if (count := next_quads(timing_ratio(rows)))}
    share = (limit - elapsed) / (a_quad * sum(missing.values())) if missing else 0.0
    if share >= 1:
        return missing
    return {name: fitting for name, count in missing.items() if (fitting := math.floor(share * count)) > 0}
