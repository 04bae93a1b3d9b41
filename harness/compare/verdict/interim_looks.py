"""Interim looks at the decayed checkpoints of a scale: the result of each, and whether it ends the scale.

With `rule.stopping = looks` every run of a scale trains to look k, a cooldown branch at a share of its
tokens. Then the scale is decided once, by the frozen rule: all its variants stop or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.decision_rule import read_rule
from harness.compare.inputs.expected_runs import ExpectedRuns, runs_in_ledger
from harness.compare.inputs.pairing import PairedRuns, paired_runs_at_end
from harness.compare.inputs.run_records import RunRecord, read_runs
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Look
from harness.compare.stats.compute_multiplier import compute_multiplier
from harness.compare.stats.estimates import Effect
from harness.compare.stats.paired_effects import NoiseFloor, effect_from_deltas
from harness.compare.stats.sequential import LookOutcome, SequentialTest, alpha_spending, sequential_p
from harness.compare.verdict.control_slopes import slope_between
from harness.compare.verdict.flags import blocking_flags, pair_flags
from harness.records.paths import SweepDir
from harness.records.run.training_target import END

INCOMPLETE = "incomplete"
"""Outcome of a look with a missing or invalid pair. Such a look decides nothing."""
NO_EFFECT = effect_from_deltas(())


@dataclass(frozen=True)
class LookDecision:
    """Decision of one look at one scale. `stop`: the scale ends here."""

    scale: str
    look: int
    """Number of the look, from 1."""
    looks: int
    """Number of looks, with the end as the last."""
    stop: bool
    outcomes: dict[str, str]
    """Outcome by treatment: continue | efficacy | futility. Later looks do not change a decided outcome."""
    sentence: str


@dataclass(frozen=True)
class LookPosition:
    """Position among the planned looks at which a rung is judged, and its level."""

    number: int
    looks: int
    alpha: float
    """Part of the rule's alpha that this look spends."""


def decide_look(sweep: SweepDir, scale: str, look: int, shares: Sequence[float]) -> LookDecision:
    """Decide if a scale ends at look `look` (from 1) of those at `shares` of the tokens, before the end.

    Reads the runs from disk. A treatment is decided by efficacy or futility (`SequentialTest`) over the pairs
    with a decayed checkpoint there; all treatments and scales of the sweep share alpha. A pair with a
    diverged run is left out. A missing pair, one with a blocking flag, or fewer than two pairs leave the
    treatment undecided. The scale stops once every treatment that it trains is decided. Raises ValueError if
    `look` is not before the end or the shares do not rise.
    """
    planned = (*shares, END)
    if not 1 <= look < len(planned) or list(planned) != sorted({*planned}) or planned[0] <= 0:
        raise ValueError(f"decide_look: no look {look} at shares {list(shares)}; they must rise from 0 to 1")
    runs = read_runs(sweep)
    rule, _, _ = read_rule(sweep, runs)
    expected_runs, rows = ExpectedRuns(rule, runs, runs_in_ledger(sweep)), {}
    for name in expected_runs.treatments:
        pairing = paired_runs_at_end(runs, scale, rule, name)
        if pairing.treatment_runs and expected_runs.compared_scales(name, [scale]):
            rows[name] = evaluate_looks(pairing, planned, rule, expected_runs.family_size, until=look)[-1]
    proceed = LookOutcome.proceed.value
    outcomes = {name: proceed if row.outcome == INCOMPLETE else row.outcome for name, row in rows.items()}
    stop = bool(outcomes) and proceed not in outcomes.values()
    details = "; ".join(_outcome_text(name, row) for name, row in rows.items())
    place = f"{scale}, look {look} of {len(planned)} ({planned[look - 1]:.0%} of the tokens)"
    sentence = f"{place}: {'stop' if stop else 'continue'}. {details or 'No treatment is trained here'}."
    return LookDecision(scale, look, len(planned), stop, outcomes, sentence)


def evaluate_looks(
    pairing: PairedRuns,
    planned: Sequence[float],
    rule: Rule,
    family: int,
    floor: NoiseFloor | None = None,
    until: int | None = None,
) -> tuple[Look, ...]:
    """Evaluate the first `until` planned looks (default: all) and return each with its outcome.

    The interval of look k has the level 1 - alpha_k. `floor` holds for the end and is used only there.
    """
    test, rows = SequentialTest(len(planned), rule.alpha, rule.margin, family), []
    for position, share in enumerate(planned[:until]):
        alpha = alpha_spending(position + 1, len(planned), rule.alpha)
        tokens, delta = _effect_at(pairing, share, floor, 1 - alpha)
        ready = is_decidable(pairing, share)
        slope = slope_between(pairing, planned[position - 1], share) if position and ready else None
        k = compute_multiplier(delta, slope) if slope else None
        verdict = test.add_look(delta if ready else NO_EFFECT, k)
        outcome = INCOMPLETE if verdict is LookOutcome.proceed and not ready else verdict.value
        rows.append(Look(share, tokens, delta, alpha / family, outcome))
    return tuple(rows)


def look_rows(pairing: PairedRuns, rule: Rule, family: int, floor: NoiseFloor | None) -> tuple[Look, ...]:
    """Return each look over the pairs that have it. With `stopping` other than none a look spends its share
    of alpha and may end the scale; otherwise its outcome is "shown"."""
    if rule.uses_looks:
        rows = evaluate_looks(pairing, planned_looks(pairing), rule, family, floor)
    else:
        shares = (*pairing.common_branches, END)
        rows = [Look(share, *_effect_at(pairing, share, floor), None, "shown") for share in shares]
    return tuple(row for row in rows if row.delta.n)


def planned_looks(pairing: PairedRuns) -> tuple[float, ...]:
    """Return the shares of the looks that the configs declare or the runs have; the last is the end."""
    runs = (*pairing.control_runs, *pairing.treatment_runs)
    branch_lists = [(run.config.get("schedule") or {}).get("branches") for run in runs]
    declared_shares = [share for shares in branch_lists if isinstance(shares, list) for share in shares]
    usable = {float(s) for s in declared_shares if isinstance(s, int | float) and 0 < s < END}
    return (*sorted(usable | {*pairing.common_branches}), END)


def look_position(pairing: PairedRuns, rule: Rule) -> LookPosition | None:
    """Return the look at which a rung is judged; None if the rule has no looks."""
    if not rule.uses_looks:
        return None
    planned = planned_looks(pairing)
    number = planned.index(pairing.look) + 1
    return LookPosition(number, len(planned), alpha_spending(number, len(planned), rule.alpha))


def sequential_p_at_look(
    pairing: PairedRuns, rows: Sequence[Look], delta: Effect, position: LookPosition
) -> float | None:
    """Return the sequential p of a rung over its complete looks so far; `delta` is the last one's effect."""
    by_share = {row.share: row.delta for row in rows if row.outcome != INCOMPLETE}
    before = planned_looks(pairing)[: position.number - 1]
    return sequential_p([*(by_share.get(share, NO_EFFECT) for share in before), delta], position.looks)


def is_decidable(pairing: PairedRuns, share: float) -> bool:
    """Return True if every pair has a valid decayed loss at a look, or a run that diverged."""
    pairs = pairing.pairs_at(share)
    paired_seeds = {pair.seed for pair in pairs}
    lost_pairs = [pair for pair in pairing.candidate_pairs if pair[0].provenance.seed not in paired_seeds]
    all_diverged = all(any(has_diverged_by(run, share) for run in pair) for pair in lost_pairs)
    candidates = [run for pair in pairing.candidate_pairs for run in pair]
    any_edited = any(run.edited_by_hand or run.problem for run in candidates)
    any_blocked = any(blocking_flags(pair_flags(pair)) for pair in pairs)
    return bool(pairs) and all_diverged and not any_edited and not any_blocked


def has_diverged_by(run: RunRecord, share: float) -> bool:
    """Return True if a run diverged, or its checkpoint at a look scored NaN or infinity."""
    scored = run.branches[share].final if share in run.branches else None
    return run.diverged or bool(scored and not np.isfinite(list(scored.by_domain.values())).all())


def _effect_at(
    pairing: PairedRuns, share: float, floor: NoiseFloor | None, level: float = 0.95
) -> tuple[int, Effect]:
    pairs = [m for m in pairing.pairs_at(share) if m.control_result.decayed and m.treatment_result.decayed]
    size = max((abs(m.control_result.loss) for m in pairs), default=0.0)
    deltas = np.array([m.treatment_result.loss - m.control_result.loss for m in pairs])
    effect = effect_from_deltas(deltas, loss_size=size, floor=floor if share == END else None, level=level)
    return (pairs[0].control_result.tokens if pairs else 0), effect


def _outcome_text(name: str, row: Look) -> str:
    """Return a treatment's outcome with its numbers."""
    pairs = f"n = {row.delta.n}"
    if row.outcome == INCOMPLETE:
        return f"{name}: a pair is missing or has no valid loss ({pairs})"
    p = "no p" if row.delta.p is None else f"p {row.delta.p:.2g}"
    return f"{name}: {row.outcome} ({p}, alpha {row.alpha:.2g}, {pairs})"
