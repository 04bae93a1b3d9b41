"""Is the treatment better at the largest scale trained? All arms there tell about the seed noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from harness.compare.inputs.pairing import one_run_per_seed
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import LargestScale, Rung, on_axis
from harness.compare.stats.block_variance import SeedBlock, block_effect, noisier_arms, seed_block
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.multiple_testing import holm, holm_levels
from harness.compare.verdict.flags import blocking_flags
from harness.compare.verdict.per_scale import (
    DraftRung,
    compute_multipliers,
    equivalence_test,
    speed_up,
    step_time,
)
from harness.config.schema.decision import Axis

NOISIER_ARM = "NOISIER_ARM"
DraftLadders = Mapping[str, Sequence[DraftRung]]
"""Rungs by treatment, smallest scale first."""


def largest_draft(drafts: Sequence[DraftRung]) -> DraftRung | None:
    """Return the rung of the largest scale that has a result; None if none has."""
    return next((draft for draft in reversed(drafts) if draft.delta.n), None)


def use_block_variance(ladders: DraftLadders) -> dict[str, list[DraftRung]]:
    """Replace the difference at each treatment's largest scale by the one with the block's variance, where
    two or more treatments share the control's seeds there. At a look the sequential test stays."""
    largest = {name: largest_draft(drafts) for name, drafts in ladders.items()}
    blocks = {draft.pairing.scale: None for draft in largest.values() if draft}
    blocks = {scale: _block(scale, ladders) for scale in blocks}
    return {
        name: [
            _with_block(draft, blocks[draft.pairing.scale]) if draft is largest[name] else draft
            for draft in drafts
        ]
        for name, drafts in ladders.items()
    }


def _block(scale: str, ladders: DraftLadders) -> SeedBlock | None:
    """Return the block of the control and the treatments whose pairs can be judged at a scale."""
    drafts = [
        draft for group in ladders.values() for draft in group
        if draft.pairing.scale == scale and draft.pairing.paired
        and not draft.position and not blocking_flags(draft.flags)
    ]  # fmt: skip
    if len(drafts) < 2:
        return None
    pairing = drafts[0].pairing
    arms = {pairing.control: pairing.control_runs}
    arms |= {draft.pairing.variant: draft.pairing.treatment_runs for draft in drafts}
    losses = {
        name: {
            seed: result.loss
            for seed, run in one_run_per_seed(runs).items()
            if (result := pairing.result_at(run)) is not None
        }
        for name, runs in arms.items()
    }
    return seed_block(losses)


def _with_block(draft: DraftRung, block: SeedBlock | None) -> DraftRung:
    pairing = draft.pairing
    if block is None or not {pairing.control, pairing.variant} <= {*block.arms}:
        return draft
    if {pairing.control, pairing.variant} & {*noisier_arms(block)}:
        return dataclasses.replace(draft, flags=draft.flags | {NOISIER_ARM})
    delta = block_effect(block, pairing.control, pairing.variant, level=draft.delta.level)
    if delta is None:
        return draft
    k, k_ladder = compute_multipliers(pairing, delta, draft.context)
    flags = draft.flags.difference(draft.delta.flags).union(delta.flags)
    return dataclasses.replace(draft, delta=delta, p=delta.p, k=k, k_ladder=k_ladder, flags=flags)


@dataclasses.dataclass(frozen=True)
class CorrectedTest:
    """Result of Holm's procedure for one treatment, and the level at which it is tested."""

    p_holm: float | None
    level: float


def correct_over_treatments(ladders: DraftLadders, rule: Rule) -> dict[str, CorrectedTest]:
    """Correct the p of each treatment's largest scale, of the loss at equal tokens, over the treatments."""
    return correct_on_axis(ladders, rule, Axis.tokens)


def correct_on_axis(ladders: DraftLadders, rule: Rule, axis: Axis) -> dict[str, CorrectedTest]:
    """Correct the p of k = 1 at equal amounts of a resource over the treatments; for tokens that of the loss
    difference."""
    largest = [largest_draft(drafts) for drafts in ladders.values()]
    p = [_p_on_axis(draft, axis) if draft else None for draft in largest]
    corrected, levels = holm(p, len(rule.family)), holm_levels(p, rule.alpha, len(rule.family))
    return {
        name: CorrectedTest(*test)
        for name, test in zip(ladders, zip(corrected, levels, strict=True), strict=True)
    }


def _p_on_axis(draft: DraftRung, axis: Axis) -> float | None:
    """Return the p of k = 1 on an axis. A sequential p exists for the loss alone, so none at a look."""
    if axis is Axis.tokens:
        return draft.p
    k = on_axis(axis, draft.k, speed_up(draft))
    return None if k is None or draft.position else k.p


def largest_scale_numbers(draft: DraftRung, rung: Rung, test: CorrectedTest) -> LargestScale:
    """Return the numbers of the largest scale. At a look the level is the share of alpha that it spends."""
    rule = draft.context.rule
    level = test.level * (draft.position.alpha / rule.alpha if draft.position else 1.0)
    k = on_axis(rule.axis, draft.k, rung.speed_up)
    low, high = log_interval(k, level)
    return LargestScale(
        rung.scale, rung.delta, draft.k, _p_on_axis(draft, rule.axis), test.p_holm, low, high,
        equivalence_test(draft, k), rule.axis, level, step_time(draft), rung.speed_up,
    )  # fmt: skip


def log_interval(k: Multiplier | None, alpha: float) -> tuple[float | None, float | None]:
    """Return the ends of the interval of ln k that errs by alpha; None without one."""
    if k is None or k.log_k is None or k.log_se is None or not k.df:
        return None, None
    half = t_critical(k.df, 1 - alpha) * k.log_se
    return k.log_k - half, k.log_k + half
