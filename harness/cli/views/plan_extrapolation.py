"""Extrapolation from small pairs to the runs of a plan, in the terminal: a table, then sentences."""

from __future__ import annotations

from harness.compare.results.verdict_types import Decision
from harness.compare.stats.estimates import Trend
from harness.compare.verdict.verdict_text import decision_phrase
from harness.core.number_format import choose_time_unit, format_interval, format_scientific
from harness.plan.extrapolation.extrapolate import Extrapolation, TreatmentSummary
from harness.report.frames.saved_plan import PlanSection
from harness.report.tables import wording
from harness.report.tables.text_table import Table, make_table

EXPLANATION = (
    "k: straight line through ln k over ln compute, extrapolated with its 95 % prediction interval. Saved:"
    " relative to the control's own run, at the same loss and an equal time per token."
)


def extrapolation_section(extrapolation: Extrapolation) -> PlanSection:
    """Build the section: the table, and the sentences on runs without a paired variant, or on all runs."""
    rows = [row for row in extrapolation.rows if not row.sibling] or extrapolation.rows
    treatments = map(_treatment_text, extrapolation.treatments)
    lines = (EXPLANATION, *(row.sentence for row in rows), *treatments, *extrapolation.notes)
    title = f"Extrapolation to runs without a paired variant ({extrapolation.experiment})"
    return PlanSection(title, _table(extrapolation), lines)


def _table(extrapolation: Extrapolation) -> Table:
    largest = max((abs(row.days_saved.value) for row in extrapolation.rows if row.days_saved), default=1.0)
    unit, per_day = choose_time_unit(largest)
    columns = (
        "run", "paired", "treatment", "against", "FLOPs", "decades beyond", "k [low, high]",
        f"{unit} saved [low, high]", "chips saved [low, high]", "bet", "tags",
    )  # fmt: skip
    rows = (
        (row.scale, "yes" if row.sibling else "no", row.treatment, row.control, format_scientific(row.flops),
         f"{row.decades:.1f}", format_interval(row.k), format_interval(row.days_saved, per_day),
         format_interval(row.chips_saved), row.bet or "not settled", ", ".join(row.tags))
        for row in extrapolation.rows
    )  # fmt: skip
    return make_table(columns, rows)


def _treatment_text(summary: TreatmentSummary) -> str:
    """Describe the verdict on the pairs that were trained."""
    scales = ", ".join(summary.scales)
    phrase = decision_phrase(summary.decision, treatment=summary.variant, control=summary.control)
    parts = [f"{phrase} at {scales} ({summary.decision.value})"]
    sound = summary.decision is not Decision.INVALID
    if sound and summary.k and summary.k.k is not None:
        parts.append(f"k = {wording.format_multiplier(summary.k)}")
    if sound and summary.trend and summary.k:
        parts.append(_trend_text(summary, summary.trend, summary.k.log_k or 0.0))
    parts.append(f"at {summary.largest}, the largest, {wording.format_effect(summary.delta)}")
    parts.append(f"gate: {summary.gate.reason}" if summary.gate else "no gate")
    return f"{'; '.join(parts)}. Flags: {', '.join(summary.flags) or 'none'}."


def _trend_text(summary: TreatmentSummary, trend: Trend, pooled: float) -> str:
    """Describe the trend of ln k in favour of the treatment; `trend` favours the variant of the pooled k."""
    ends = (trend.gamma, trend.low, trend.high)
    gamma, low, high = ends if pooled >= 0 else (-ends[0], -ends[2], -ends[1])
    favourite = summary.variant if pooled >= 0 else summary.control
    change = f"ln k moves by {gamma:+.3f} [{low:+.3f}, {high:+.3f}] per e-fold of compute"
    return f"{change} ({trend.direction.value}: the pooled k favours {favourite})"
