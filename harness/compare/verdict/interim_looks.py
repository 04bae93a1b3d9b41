"""The decayed checkpoints of a scale in order: what each shows, and whether it ends the scale.

With `rule.stopping = looks` every run of a scale trains to look k, a cooldown branch at a share of its
tokens; then the scale is decided once, by the rule that was written down: all its variants stop or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.decision_rule import read_rule
from harness.compare.inputs.expected_runs import Roster, placed_runs
from harness.compare.inputs.pairing import Bout
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Look
from harness.compare.stats.compute_multiplier import compute_multiplier
from harness.compare.stats.estimates import Effect, Multiplier
from harness.compare.stats.paired_effects import NoiseFloor, effect_of
from harness.compare.stats.sequential import SequentialTest, Verdict, sequential_p, spend
from harness.compare.verdict.control_slopes import slope_between
from harness.compare.verdict.flags import blocking, pair_flags
from harness.records.paths import SweepDir
from harness.records.run.training_target import END

INCOMPLETE = "incomplete"
"""Outcome of a look at which a pair is still missing, or unsound: nothing was decided there."""
NOTHING = effect_of(())


@dataclass(frozen=True)
class LookDecision:
    """Whether a scale ends at a look."""

    scale: str
    look: int
    """From 1."""
    looks: int
    """With the end, which is the last."""
    stop: bool
    outcomes: dict[str, str]
    """By treatment: continue | efficacy | futility. What one look decided, later ones leave as it is."""
    sentence: str


@dataclass(frozen=True)
class Standing:
    """At which of the planned looks a rung is judged, and at what level."""

    number: int
    looks: int
    alpha: float
    """What this look may spend of the rule's alpha."""
    cost: float
    """alpha over it: what a p of this look alone is multiplied by."""


def decide_look(sweep: SweepDir, scale: str, look: int, shares: Sequence[float]) -> LookDecision:
    """Whether a scale ends at look `look` (from 1) of those at `shares` of the tokens; the end is one more.

    Read from the runs as they lie on disk. A treatment is decided by efficacy or futility
    (`SequentialTest`) over the pairs that have a decayed checkpoint there, with alpha shared by all
    treatments and scales of the sweep. A pair of which a run diverged is left out; one that is missing, or
    unsound (a flag that would block the verdict), leaves its treatment undecided, and so do fewer than two
    pairs. The scale stops once every treatment that it trains is decided.
    Raises ValueError for a look that is not before the end, or shares out of order.
    """
    planned = (*shares, END)
    if not 1 <= look < len(planned) or list(planned) != sorted({*planned}) or planned[0] <= 0:
        raise ValueError(f"decide_look: look {look} of shares {list(shares)}, which rise between 0 and 1")
    runs = read_runs(sweep)
    rule, _, _ = read_rule(sweep, runs)
    roster, rows = Roster(rule, runs, placed_runs(sweep)), {}
    for name in roster.treatments:
        bout = _bout(runs, scale, name, rule)
        if bout.b_runs and roster.scales_of(name, [scale]):
            rows[name] = walk(bout, planned, rule, roster.family, until=look)[-1]
    outcomes = {name: _decided(row) for name, row in rows.items()}
    stop = bool(outcomes) and Verdict.proceed.value not in outcomes.values()
    told = "; ".join(_told(name, row) for name, row in rows.items()) or "no treatment is trained here"
    place = f"{scale}, look {look} of {len(planned)} ({planned[look - 1]:.0%} of the tokens)"
    sentence = f"{place}: {'stop' if stop else 'continue'}. {told}."
    return LookDecision(scale, look, len(planned), stop, outcomes, sentence)


def walk(
    bout: Bout,
    planned: Sequence[float],
    rule: Rule,
    family: int,
    floor: NoiseFloor | None = None,
    until: int | None = None,
) -> tuple[Look, ...]:
    """The first `until` of the planned looks of a bout (all of them by default), each with its outcome.

    The interval of a look is at the level 1 - alpha_k; `floor` is that of the end, and serves there alone.
    """
    test, rows = SequentialTest(len(planned), rule.alpha, rule.margin, family), []
    for position, share in enumerate(planned[:until]):
        alpha = spend(position + 1, len(planned), rule.alpha)
        tokens, delta = _at(bout, share, floor, 1 - alpha)
        ready = is_ready(bout, share)
        k = _multiplier(bout, planned[position - 1], share, delta) if position and ready else None
        verdict = test.look(delta if ready else NOTHING, k)
        outcome = INCOMPLETE if verdict is Verdict.proceed and not ready else verdict.value
        rows.append(Look(share, tokens, delta, alpha / family, outcome))
    return tuple(rows)


def look_rows(bout: Bout, rule: Rule, family: int, floor: NoiseFloor | None) -> tuple[Look, ...]:
    """Each look over the pairs that have it. Without declared stopping a look is only shown; with
    `stopping` other than none it spends its share of alpha and may end the scale."""
    if rule.by_looks:
        rows = walk(bout, planned_looks(bout), rule, family, floor)
    else:
        found = [(share, *_at(bout, share, floor)) for share in (*bout.shares, END)]
        rows = [Look(share, tokens, delta, None, "shown") for share, tokens, delta in found]
    return tuple(row for row in rows if row.delta.n)


def planned_looks(bout: Bout) -> tuple[float, ...]:
    """The looks that the runs' configs declare, and any further one that is there; the end is the last."""
    runs = (*bout.a_runs, *bout.b_runs)
    declared = [(run.config.get("schedule") or {}).get("branches") for run in runs]
    named = {share for shares in declared if isinstance(shares, list) for share in shares}
    usable = {float(s) for s in named if isinstance(s, int | float) and 0 < s < END}
    return (*sorted(usable | {*bout.shares}), END)


def standing_of(bout: Bout, rule: Rule) -> Standing | None:
    """Where a rung under looks is judged; None without stopping."""
    if not rule.by_looks:
        return None
    planned = planned_looks(bout)
    number = planned.index(bout.look) + 1
    alpha = spend(number, len(planned), rule.alpha)
    return Standing(number, len(planned), alpha, rule.alpha / alpha)


def peeked_p(bout: Bout, rows: Sequence[Look], delta: Effect, standing: Standing) -> float | None:
    """The sequential p of a rung: over its complete looks so far, the last of which is `delta`."""
    by_share = {row.share: row.delta for row in rows if row.outcome != INCOMPLETE}
    before = planned_looks(bout)[: standing.number - 1]
    return sequential_p([*(by_share.get(share, NOTHING) for share in before), delta], standing.looks)


def is_ready(bout: Bout, share: float) -> bool:
    """Whether every pair is at a look with a sound, decayed loss, or has a run that diverged."""
    matches = bout.matches_at(share)
    there = {match.seed for match in matches}
    lost = [pair for pair in bout.candidates if pair[0].provenance.seed not in there]
    gone = all(any(diverged_by(run, share) for run in pair) for pair in lost)
    edited = any(run.edited for pair in bout.candidates for run in pair)
    return bool(matches) and gone and not edited and not any(blocking(pair_flags(m)) for m in matches)


def diverged_by(run: RunRecord, share: float) -> bool:
    """It ended so, or its checkpoint at a look scored NaN or infinity."""
    scored = run.branches[share].final if share in run.branches else None
    return run.diverged or bool(scored and not np.isfinite(list(scored.by_domain.values())).all())


def _bout(runs: Sequence[RunRecord], scale: str, variant: str, rule: Rule) -> Bout:
    here = [run for run in runs if run.provenance.scale == scale]
    a, b = (tuple(run for run in here if run.provenance.variant == name) for name in (rule.control, variant))
    return Bout(scale, rule.control, variant, rule.domains, a, b)


def _at(bout: Bout, share: float, floor: NoiseFloor | None, level: float = 0.95) -> tuple[int, Effect]:
    both = [m for m in bout.matches_at(share) if m.a.decayed and m.b.decayed]
    size = max((abs(m.a.loss) for m in both), default=0.0)
    deltas = np.array([m.b.loss - m.a.loss for m in both])
    effect = effect_of(deltas, size=size, floor=floor if share == END else None, level=level)
    return (both[0].a.tokens if both else 0), effect


def _multiplier(bout: Bout, before: float, share: float, delta: Effect) -> Multiplier | None:
    slope = slope_between(bout, before, share)
    return compute_multiplier(delta, slope) if slope else None


def _decided(row: Look) -> str:
    return Verdict.proceed.value if row.outcome == INCOMPLETE else row.outcome


def _told(name: str, row: Look) -> str:
    """A treatment's outcome with its numbers."""
    pairs = f"n = {row.delta.n}"
    if row.outcome == INCOMPLETE:
        return f"{name}: not every pair is there with a sound loss ({pairs})"
    p = "no p" if row.delta.p is None else f"p {row.delta.p:.2g}"
    return f"{name}: {row.outcome} ({p}, alpha {row.alpha:.2g}, {pairs})"
