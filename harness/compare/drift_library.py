"""Drift of ln k that finished sweeps have shown: what a rule may name before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.compare.judge import judge, read_inputs
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.bet import MIN_LADDERS, Drift, SeenDrift, pooled_drift, seen_drift
from harness.compare.verdict.larger_run import asks_about_data
from harness.core.errors import UserError
from harness.records.sweep.find_sweep import read_sweep


def read_drift(sweeps: Sequence[str], touches: Sequence[str]) -> Drift:
    """Return the drift that the ladders of finished sweeps show together. touches: the nodes that the new
    question declares; ladders of another kind of question do not count. Raises UserError if there is no
    sweep, one is not finished, or fewer than MIN_LADDERS ladders of three scales count."""
    about_data = asks_about_data(touches)
    drifts = [drift for path in sweeps for drift in _drift_by_ladder(path, about_data)]
    drift, names = pooled_drift(drifts), ",".join(sweeps)
    if drift is None and len(drifts) >= MIN_LADDERS:
        raise UserError(
            f"rule.drift_from={names}: their ladders show no drift beyond their noise; leave it out for the "
            "default"
        )
    if drift is None:
        kind = "a question about the data" if about_data else "a question that leaves the data alone"
        raise UserError(
            f"rule.drift_from={names}: they hold {len(drifts)} valid ladders of three scales for "
            f"{kind}, and {MIN_LADDERS} tell a drift; name more sweeps, or leave it out for the default"
        )
    return drift


def _drift_by_ladder(path: str, about_data: bool) -> Iterator[SeenDrift]:
    """Yield the drift of each valid ladder of a sweep, if it is of this kind. A positive control, known to be
    worse beforehand, says nothing of open questions."""
    try:
        inputs = read_inputs(read_sweep(path))
    except UserError as error:
        raise UserError(f"rule.drift_from={error}") from None
    touches = [node for run in inputs.runs for node in run.provenance.touches]
    if asks_about_data(touches) != about_data:
        return
    comparison = judge(inputs)
    if "INCOMPLETE" in comparison.flags:
        raise UserError(f"rule.drift_from={path}: it is not finished; finish it, or leave it out")
    for ladder in comparison.ladder:
        if ladder.positive_control or ladder.decision is Decision.INVALID:
            continue
        points = [
            (math.log(rung.flops), rung.k)
            for rung in comparison.rungs
            if rung.variant == ladder.variant and rung.k and rung.flops
        ]
        drift = seen_drift([x for x, _ in points], [k for _, k in points])
        if drift is not None:
            yield drift
