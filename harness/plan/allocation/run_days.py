"""Days, energy and recovery of one run on its chips, with failures and saves."""

from __future__ import annotations

from dataclasses import dataclass

from harness.estimate.clusters import Cluster, gigawatt_hours, meter_watts
from harness.plan.allocation.reliability import RecoveryOption, recovery_options
from harness.plan.predict import CostPrediction, PlanEstimate

MIN_GOODPUT = 0.5
"""Share of the time that must train for a recovery option to be worth planning with. Assumed."""


@dataclass(frozen=True)
class RunCosts:
    """Days, energy and interruptions of a run with a token budget."""

    options: tuple[RecoveryOption, ...]
    """Recovery options, simplest first."""
    best_option: RecoveryOption
    """Recovery option whose goodput is highest."""
    mtbf_hours: float
    """Mean hours between interruptions."""
    interruptions: float
    """Expected number of interruptions until the end, with the best option."""
    days: PlanEstimate | None
    """Days until the end, interruptions and saves included; None: the run never ends."""
    gigawatt_hours: PlanEstimate | None
    """Energy at the meter of all chips that the run has; None: the run never ends."""
    verdict: str
    """Reason why a run misses the plan, or the one option with which it meets it; empty: all options do."""


def run_costs(cluster: Cluster, prediction: CostPrediction, chips: int, kind: str | None = None) -> RunCosts:
    """Return the costs of a predicted run that has `chips` of one kind, idle ones included."""
    part = cluster.partition(kind)
    state = sum(prediction.memory[name].value for name in ("weights", "optimizer"))
    options = recovery_options(cluster, part, prediction.devices, state, prediction.layout.data)
    best = max(options, key=lambda option: option.goodput)
    mtbf = part.mtbf_hours(prediction.devices)
    days = prediction.days.scaled(1 / best.goodput) if prediction.days and best.goodput > 0 else None
    a_day = gigawatt_hours(meter_watts(cluster, part, chips), 1)
    return RunCosts(
        options=options,
        best_option=best,
        mtbf_hours=mtbf,
        interruptions=days.value * 24 / mtbf if days else 0.0,
        days=days,
        gigawatt_hours=days.scaled(a_day) if days else None,
        verdict=_verdict(prediction, options, best, mtbf),
    )


def _verdict(
    prediction: CostPrediction, options: tuple[RecoveryOption, ...], best: RecoveryOption, mtbf: float
) -> str:
    if not prediction.fits:
        return "does not fit"
    if not best.goodput > 0:
        return f"interrupted every {mtbf:.2f} h: no recovery option leaves time to train"
    if best.goodput < MIN_GOODPUT:
        return f"interrupted every {mtbf:.2f} h: at best {best.goodput:.0%} of the time trains"
    poor_options = [option for option in options if option.goodput < MIN_GOODPUT]
    others = ", ".join(f"with {option.name} {option.goodput:.0%}" for option in poor_options)
    return others and f"only with {best.name}, when {best.goodput:.0%} of the time trains; {others}"
