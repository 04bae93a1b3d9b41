"""The decayed checkpoints of a scale in order: what each shows, and what it may decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.compare.align import END, Bout
from harness.compare.effects import effect_of
from harness.compare.results import Effect, Look
from harness.compare.sequential import SequentialTest, spend

if TYPE_CHECKING:
    from harness.compare.rungs import Context


def look_rows(bout: Bout, context: Context) -> tuple[Look, ...]:
    """Each look over the pairs that have it. Without declared stopping a look is only shown; with
    `stopping` other than none it spends its share of alpha and may end the scale."""
    rule = context.rule
    shares = [*bout.shares, END]
    declared = rule.stopping != "none"
    test = SequentialTest(len(shares), rule.alpha, rule.margin)
    rows = []
    for position, share in enumerate(shares):
        tokens, delta = _at(bout, share, context)
        if not delta.n:
            continue
        level = spend(position + 1, len(shares), rule.alpha) if declared else None
        outcome = test.look(delta).value if declared else "shown"
        rows.append(Look(share, tokens, delta, level, outcome))
    return tuple(rows)


def _at(bout: Bout, share: float, context: Context) -> tuple[int, Effect]:
    pairs = [(bout.outcome(a, share), bout.outcome(b, share)) for a, b in bout.candidates]
    both = [(a, b) for a, b in pairs if a and b and a.decayed and b.decayed]
    size = max((abs(a.loss) for a, _ in both), default=0.0)
    deltas = np.array([b.loss - a.loss for a, b in both])
    effect = effect_of(deltas, size=size, floor=context.floors.get(bout.scale) if share == END else None)
    return (both[0][0].tokens if both else 0), effect
