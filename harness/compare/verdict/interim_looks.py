"""The decayed checkpoints of a scale in order: what each shows, and whether it ends the scale.

With `rule.stopping = looks` every run of a scale trains to look k, a cooldown branch at a share of its
tokens; then the scale is decided once, by the rule that was written down: all its variants stop or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.decision_rule import read_rule
from harness.compare.inputs.expected_runs import ExpectedRuns, runs_in_ledger
from harness.compare.inputs.pairing import PairedRuns
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Look
from harness.compare.stats.compute_multiplier import compute_multiplier
from harness.compare.stats.estimates import Effect, Multiplier
from harness.compare.stats.paired_effects import NoiseFloor, effect_from_deltas
from harness.compare.stats.sequential import LookOutcome, SequentialTest, alpha_spending, sequential_p
from harness.compare.verdict.control_slopes import slope_between
from harness.compare.verdict.flags import blocking_flags, pair_flags
from harness.records.paths import SweepDir
from harness.records.run.training_target import END

INCOMPLETE = "incomplete"
"""Outcome of a look at which a pair is still missing, or unsound: nothing was decided there."""
NO_EFFECT = effect_from_deltas(())


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
class LookPosition:
    """At which of the planned looks a rung is judged, and at what level."""

    number: int
    looks: int
    alpha: float
    """What this look may spend of the rule's alpha."""
    p_factor: float
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
    roster, rows = ExpectedRuns(rule, runs, runs_in_ledger(sweep)), {}
    for name in roster.treatments:
        pairing = _pairing(runs, scale, name, rule)
        if pairing.treatment_runs and roster.compared_scales(name, [scale]):
            rows[name] = evaluate_looks(pairing, planned, rule, roster.family_size, until=look)[-1]
    outcomes = {name: _decided(row) for name, row in rows.items()}
    stop = bool(outcomes) and LookOutcome.proceed.value not in outcomes.values()
    details = (
        "; ".join(_outcome_text(name, row) for name, row in rows.items()) or "no treatment is trained here"
    )
    place = f"{scale}, look {look} of {len(planned)} ({planned[look - 1]:.0%} of the tokens)"
    sentence = f"{place}: {'stop' if stop else 'continue'}. {details}."
    return LookDecision(scale, look, len(planned), stop, outcomes, sentence)


def evaluate_looks(
    pairing: PairedRuns,
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
        alpha = alpha_spending(position + 1, len(planned), rule.alpha)
        tokens, delta = _effect_at(pairing, share, floor, 1 - alpha)
        ready = is_decidable(pairing, share)
        k = _multiplier_between(pairing, planned[position - 1], share, delta) if position and ready else None
        verdict = test.add_look(delta if ready else NO_EFFECT, k)
        outcome = INCOMPLETE if verdict is LookOutcome.proceed and not ready else verdict.value
        rows.append(Look(share, tokens, delta, alpha / family, outcome))
    return tuple(rows)


def look_rows(pairing: PairedRuns, rule: Rule, family: int, floor: NoiseFloor | None) -> tuple[Look, ...]:
    """Each look over the pairs that have it. Without declared stopping a look is only shown; with
    `stopping` other than none it spends its share of alpha and may end the scale."""
    if rule.uses_looks:
        rows = evaluate_looks(pairing, planned_looks(pairing), rule, family, floor)
    else:
        shown_looks = [
            (share, *_effect_at(pairing, share, floor)) for share in (*pairing.common_branches, END)
        ]
        rows = [Look(share, tokens, delta, None, "shown") for share, tokens, delta in shown_looks]
    return tuple(row for row in rows if row.delta.n)


def planned_looks(pairing: PairedRuns) -> tuple[float, ...]:
    """The looks that the runs' configs declare, and any further one that is there; the end is the last."""
    runs = (*pairing.control_runs, *pairing.treatment_runs)
    branch_lists = [(run.config.get("schedule") or {}).get("branches") for run in runs]
    declared_shares = {share for shares in branch_lists if isinstance(shares, list) for share in shares}
    usable = {float(s) for s in declared_shares if isinstance(s, int | float) and 0 < s < END}
    return (*sorted(usable | {*pairing.common_branches}), END)


def look_position(pairing: PairedRuns, rule: Rule) -> LookPosition | None:
    """Where a rung under looks is judged; None without stopping."""
    if not rule.uses_looks:
        return None
    planned = planned_looks(pairing)
    number = planned.index(pairing.look) + 1
    alpha = alpha_spending(number, len(planned), rule.alpha)
    return LookPosition(number, len(planned), alpha, rule.alpha / alpha)


def sequential_p_at_look(
    pairing: PairedRuns, rows: Sequence[Look], delta: Effect, position: LookPosition
) -> float | None:
    """The sequential p of a rung: over its complete looks so far, the last of which is `delta`."""
    by_share = {row.share: row.delta for row in rows if row.outcome != INCOMPLETE}
    before = planned_looks(pairing)[: position.number - 1]
    return sequential_p([*(by_share.get(share, NO_EFFECT) for share in before), delta], position.looks)


def is_decidable(pairing: PairedRuns, share: float) -> bool:
    """Whether every pair is at a look with a sound, decayed loss, or has a run that diverged."""
    matches = pairing.pairs_at(share)
    paired_seeds = {match.seed for match in matches}
    lost_pairs = [pair for pair in pairing.candidate_pairs if pair[0].provenance.seed not in paired_seeds]
    all_diverged = all(any(has_diverged_by(run, share) for run in pair) for pair in lost_pairs)
    any_edited = any(run.edited_by_hand for pair in pairing.candidate_pairs for run in pair)
    return (
        bool(matches)
        and all_diverged
        and not any_edited
        and not any(blocking_flags(pair_flags(m)) for m in matches)
    )


def has_diverged_by(run: RunRecord, share: float) -> bool:
    """It ended so, or its checkpoint at a look scored NaN or infinity."""
    scored = run.branches[share].final if share in run.branches else None
    return run.diverged or bool(scored and not np.isfinite(list(scored.by_domain.values())).all())


def _pairing(runs: Sequence[RunRecord], scale: str, variant: str, rule: Rule) -> PairedRuns:
    scale_runs = [run for run in runs if run.provenance.scale == scale]
    a, b = (
        tuple(run for run in scale_runs if run.provenance.variant == name) for name in (rule.control, variant)
    )
    return PairedRuns(scale, rule.control, variant, rule.domains, a, b)


def _effect_at(
    pairing: PairedRuns, share: float, floor: NoiseFloor | None, level: float = 0.95
) -> tuple[int, Effect]:
    pairs = [m for m in pairing.pairs_at(share) if m.control_result.decayed and m.treatment_result.decayed]
    size = max((abs(m.control_result.loss) for m in pairs), default=0.0)
    deltas = np.array([m.treatment_result.loss - m.control_result.loss for m in pairs])
    effect = effect_from_deltas(deltas, loss_size=size, floor=floor if share == END else None, level=level)
    return (pairs[0].control_result.tokens if pairs else 0), effect


def _multiplier_between(pairing: PairedRuns, before: float, share: float, delta: Effect) -> Multiplier | None:
    slope = slope_between(pairing, before, share)
    return compute_multiplier(delta, slope) if slope else None


def _decided(row: Look) -> str:
    return LookOutcome.proceed.value if row.outcome == INCOMPLETE else row.outcome


def _outcome_text(name: str, row: Look) -> str:
    """A treatment's outcome with its numbers."""
    pairs = f"n = {row.delta.n}"
    if row.outcome == INCOMPLETE:
        return f"{name}: not every pair is there with a sound loss ({pairs})"
    p = "no p" if row.delta.p is None else f"p {row.delta.p:.2g}"
    return f"{name}: {row.outcome} ({p}, alpha {row.alpha:.2g}, {pairs})"
