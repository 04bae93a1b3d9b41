"""What evidence of small pairs says of a plan, in the terminal: a table, then sentences."""

from __future__ import annotations

from harness.compare.results.verdict_types import Decision
from harness.compare.stats.estimates import Trend
from harness.core import number_format
from harness.plan.extrapolation.extrapolate import Extrapolation, ScaleExtrapolation, TreatmentSummary
from harness.report.frames.saved_plan import Part, time_unit
from harness.report.tables import wording
from harness.report.tables.text_table import Table, make_table

CHIPS_SAVED = "chips saved [low, high]"
WIDE = ("sibling", "against", "FLOPs", "decades beyond", CHIPS_SAVED, "bet")
"""What a narrow screen has no room for; the sentences have most of it."""
MEANT = (
    "k: a straight line through ln k over ln compute, carried on with its 95 % prediction interval. Saved: of"
    " the control's own run, for the same loss, at an equal time a token."
)


def bets_part(bets: Extrapolation) -> Part:
    """The table, and the sentences of rows without a sibling; where there are none, of all."""
    alone = [bet.sentence for bet in bets.rows if not bet.sibling]
    told = alone or [bet.sentence for bet in bets.rows]
    return Part(
        f"What the evidence says of the rows without a sibling ({bets.experiment})",
        _bets(bets),
        (MEANT, *told, *map(_treatment, bets.treatments), *bets.notes),
        wide=WIDE,
    )


def _bets(bets: Extrapolation) -> Table:
    most = max((abs(bet.days_saved.value) for bet in bets.rows if bet.days_saved), default=1.0)
    unit, a_day = time_unit(most)
    columns = (
        "run", "sibling", "treatment", "against", "FLOPs", "decades beyond", "k [low, high]",
        f"{unit} saved [low, high]", CHIPS_SAVED, "bet", "tags",
    )  # fmt: skip
    return make_table(columns, (_bet_row(bet, a_day) for bet in bets.rows))


def _bet_row(bet: ScaleExtrapolation, a_day: float) -> tuple[str, ...]:
    return (
        bet.scale,
        "yes" if bet.sibling else "no",
        bet.treatment,
        bet.control,
        number_format.format_scientific(bet.flops),
        f"{bet.decades:.1f}",
        number_format.format_interval(bet.k),
        number_format.format_interval(bet.days_saved, a_day),
        number_format.format_interval(bet.chips_saved),
        bet.bet or "not settled",
        ", ".join(bet.tags),
    )


def _treatment(one: TreatmentSummary) -> str:
    """What was found where pairs were trained."""
    told = [f"{one.variant} against {one.control} at {', '.join(one.scales)}: {one.decision.value}"]
    sound = one.decision is not Decision.INVALID
    if sound and one.k and one.k.k is not None:
        told.append(f"{one.k.estimand.value} {wording.format_multiplier(one.k)}")
    if sound and one.trend and one.k:
        told.append(_trend(one, one.trend, one.k.log_k or 0.0))
    told.append(f"at {one.largest}, the largest, {wording.format_effect(one.delta)}")
    told.append(f"gate: {one.gate.reason}" if one.gate else "no gate was asked for")
    return f"{'; '.join(told)}. Flags: {', '.join(one.flags) or 'none'}."


def _trend(one: TreatmentSummary, trend: Trend, pooled: float) -> str:
    """In the treatment's favour, whereas a trend is told in favour of whom the pooled k leans to."""
    ends = (trend.gamma, trend.low, trend.high)
    gamma, low, high = ends if pooled >= 0 else (-ends[0], -ends[2], -ends[1])
    return (
        f"ln k moves by {gamma:+.3f} [{low:+.3f}, {high:+.3f}] an e-fold of compute ({trend.direction.value}:"
        f" the pooled k leans to {one.variant if pooled >= 0 else one.control})"
    )
