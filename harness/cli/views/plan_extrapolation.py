"""Extrapolation from small pairs to the runs of a plan, in the terminal: a table, then sentences."""

from __future__ import annotations

from collections.abc import Iterator

from harness.compare.results.verdict_types import Decision
from harness.compare.stats.bet import BetDecision
from harness.compare.stats.estimates import Trend
from harness.compare.verdict.verdict_text import decision_phrase
from harness.config.schema.decision import Axis
from harness.core.number_format import (
    MISSING,
    choose_time_unit,
    format_interval,
    format_p_statement,
    format_scientific,
)
from harness.plan.extrapolation.extrapolate import Extrapolation, ScaleExtrapolation, TreatmentSummary
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables import wording
from harness.report.tables.text_table import Table, make_table

EXPLANATION = (
    "k: that of the largest scale trained, with a 90 % interval that holds its drift up to the run. Chance: "
    "that the treatment is better there. Saved: relative to the control's own run, at the same loss and {}."
)
EQUAL_TIME = {
    Axis.tokens: "an equal time per token",
    Axis.flops: "an equal time per FLOP",
    Axis.seconds: "its own time per token",
}
"""Assumption under which k saves time, by what it counts."""


def extrapolation_section(extrapolation: Extrapolation) -> PlanSection:
    """Build the section: the table, and the sentences on runs without a paired variant, or on all runs."""
    rows = [row for row in extrapolation.rows if not row.sibling] or extrapolation.rows
    treatments = map(_treatment_text, extrapolation.treatments)
    axes = {row.verdict.axis for row in extrapolation.rows if row.verdict} or {Axis.tokens}
    explanation = EXPLANATION.format(" or ".join(EQUAL_TIME[axis] for axis in Axis if axis in axes))
    lines = (explanation, *(row.sentence for row in rows), *treatments, *extrapolation.notes)
    title = f"Extrapolation to runs without a paired variant ({extrapolation.experiment})"
    return PlanSection(title, _table(extrapolation), lines)


def _table(extrapolation: Extrapolation) -> Table:
    largest = max((abs(row.days_saved.value) for row in extrapolation.rows if row.days_saved), default=1.0)
    unit, per_day = choose_time_unit(largest)
    columns = (
        "run", "paired", "treatment", "against", "FLOPs", "decades beyond", "k [low, high]", "chance",
        f"{unit} saved [low, high]", "chips saved [low, high]", "bet", "tags",
    )  # fmt: skip
    rows = (
        (row.scale, "yes" if row.sibling else "no", row.treatment, row.control, format_scientific(row.flops),
         f"{row.decades:.1f}", format_interval(row.k), _chance_text(row),
         format_interval(row.days_saved, per_day), format_interval(row.chips_saved), _bet_text(row),
         ", ".join(row.tags))
        for row in extrapolation.rows
    )  # fmt: skip
    return make_table(columns, rows)


def _chance_text(row: ScaleExtrapolation) -> str:
    return f"{row.verdict.estimate.chance:.2f}" if row.verdict else MISSING


def _bet_text(row: ScaleExtrapolation) -> str:
    either = row.verdict is not None and row.verdict.decision is BetDecision.EITHER
    return row.bet or ("either" if either else "not settled")


def _treatment_text(summary: TreatmentSummary) -> str:
    """Describe the verdict on the pairs that were trained."""
    phrase = decision_phrase(summary.decision, treatment=summary.variant, control=summary.control)
    place = f" at {summary.largest_scale.scale}, the largest scale trained" if summary.largest_scale else ""
    parts = [f"{phrase}{place} ({summary.decision.value})"]
    if summary.largest_scale and summary.decision is not Decision.INVALID:
        if summary.largest_scale.k and summary.largest_scale.k.k is not None:
            parts.append(f"k = {wording.format_multiplier(summary.largest_scale.k)}")
        parts.append(f"loss difference {wording.format_effect(summary.largest_scale.delta)}")
        parts += _ladder_texts(summary)
    parts.append(f"gate: {summary.gate.reason}" if summary.gate else "no gate")
    return f"{'; '.join(parts)}. Flags: {', '.join(summary.flags) or 'none'}."


def _ladder_texts(summary: TreatmentSummary) -> Iterator[str]:
    """Yield what describes all scales, if there are several."""
    if len(summary.scales) < 2:
        return
    scales = ", ".join(summary.scales)
    if "HETEROGENEOUS" in summary.flags:
        yield f"{scales} have no k in common (HETEROGENEOUS, {format_p_statement(summary.heterogeneity_p)})"
    elif summary.k and summary.k.k is not None:
        yield f"pooled over {scales}: k = {wording.format_multiplier(summary.k)}"
    if summary.trend:
        yield _trend_text(summary, summary.trend)


def _trend_text(summary: TreatmentSummary, trend: Trend) -> str:
    """Describe the trend of ln k in favour of the treatment; `trend` favours the variant of the pooled k."""
    favours_treatment = trend.slope * trend.gamma >= 0
    low, high = (trend.low, trend.high) if favours_treatment else (-trend.high, -trend.low)
    favourite = summary.variant if favours_treatment else summary.control
    change = f"ln k moves by {trend.slope:+.3f} [{low:+.3f}, {high:+.3f}] per e-fold of compute"
    return f"{change} ({trend.direction.value}: the mean over the scales favours {favourite})"
