"""What one run on its share of a machine comes to: days with failures, saves, energy."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.cluster.clusters import Cluster
from harness.plan.cluster.power import draw
from harness.plan.cluster.reliability import Outlook, best, interruptions, outlooks
from harness.plan.predict import Number, Prediction

ENOUGH = 0.5
"""Share of the time that has to train for a way to recover to be one to plan with. Assumed."""


@dataclass(frozen=True)
class Account:
    """Of a run that is planned with a token budget."""

    ways: tuple[Outlook, ...]
    """To recover, simplest first."""
    way: Outlook
    """The best of them."""
    interruptions: float
    """Expected until the end, in that way."""
    days: Number | None
    """Until the end, interruptions and saves included; None: it never ends."""
    gigawatt_hours: Number | None
    """At the meter, of all chips that it was given; None as above."""
    possible_power: bool
    """Whether the site can feed these chips."""
    verdict: str
    """Why it cannot run as it is laid out, or with what alone it can; empty: it can, in every way."""


def account(cluster: Cluster, found: Prediction, chips: int, kind: str | None = None) -> Account:
    """Of a prediction for `chips` of one kind, those that stay idle included."""
    part = cluster.part(kind)
    state = sum(found.memory[name].value for name in ("weights", "optimizer"))
    ways = outlooks(cluster, part, found.devices, state, found.layout.data)
    way = best(ways)
    days = found.days.times(1 / way.goodput) if found.days and way.feasible else None
    drawn = draw(cluster, part, chips)
    return Account(
        ways=ways,
        way=way,
        interruptions=interruptions(days.value, way.mtbf) if days else 0.0,
        days=days,
        gigawatt_hours=days.times(drawn.gigawatt_hours(1)) if days else None,
        possible_power=drawn.possible,
        verdict=_verdict(found, ways, way),
    )


def _verdict(found: Prediction, ways: tuple[Outlook, ...], way: Outlook) -> str:
    if not found.fits:
        return "does not fit"
    if not way.feasible:
        return f"interrupted every {way.mtbf:.2f} h: no way to recover leaves any training"
    lost = [f"with {one.recovery.name} {one.goodput:.0%}" for one in ways if one.goodput < ENOUGH]
    if way.goodput < ENOUGH:
        return f"interrupted every {way.mtbf:.2f} h: at best {way.goodput:.0%} of the time trains"
    told = f"only with {way.recovery.name}, when {way.goodput:.0%} of the time trains"
    return f"{told}; {', '.join(lost)}" if lost else ""
