"""A sweep on a machine that is not here: chips shared out, each run predicted, failures and power counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.config.schema.cluster import ClusterConfig
from harness.plan.allocation.allocated_run import Member
from harness.plan.allocation.mixed_chips import as_one, mixing
from harness.plan.allocation.run_days import Account, account
from harness.plan.allocation.share_chips import share_out
from harness.plan.cluster.clusters import Cluster, from_config
from harness.plan.cluster.power import draw, whole_draw
from harness.plan.cluster.reliability import Outlook
from harness.plan.cost_model.model_size import ModelShape, from_facts
from harness.plan.plan_types import (
    COUNTED,
    Alternative,
    Described,
    Machine,
    Meter,
    Mixed,
    PlannedRun,
    Share,
    Sheet,
    Way,
    labels,
    last,
)
from harness.plan.predict import Evidence, Number, Prediction


def plan_elsewhere(runs: Sequence[Described], config: ClusterConfig) -> Sheet:
    """Raises UserError for a number of the cluster that is missing, and where runs outnumber fast domains.
    A run that fits nowhere stops no other: its counts are there, and why."""
    cluster = from_config(config)
    models = [from_facts(run.config, run.facts, run.name) for run in runs]
    members = share_out(models, cluster)
    planned = _planned(cluster, members)
    return Sheet(planned, _machine(cluster, members, planned, models))


def _planned(cluster: Cluster, members: Sequence[Member]) -> tuple[PlannedRun, ...]:
    """In the order of the members; each begins when those before it on its slot have ended."""
    ends: dict[tuple[str, int | None], float] = {}
    found = [_one(cluster, member) for member in members]
    for index in sorted(range(len(members)), key=lambda index: members[index].after):
        place = members[index].kind, members[index].slot
        begins = 0.0 if members[index].slot is None else ends.get(place, 0.0)
        found[index] = run = dataclasses.replace(found[index], begins=begins)
        ends[place] = begins + (run.days.value if run.days else 0.0)
    return tuple(found)


def _one(cluster: Cluster, member: Member) -> PlannedRun:
    model, found = member.model, member.prediction
    counted = PlannedRun(
        name=model.name,
        parameters=model.parameters,
        active_parameters=model.active,
        flops_per_token=model.flops_per_token,
        tokens=model.tokens,
        kind=member.kind,
        chips=member.chips,
        devices=0,
        chip_memory=cluster.part(member.kind).chip.memory,
        verdict=member.refused,
        evidence=COUNTED,
    )
    if found is None:
        return counted
    return _predicted(counted, found, account(cluster, found, member.chips, member.kind))


def _predicted(counted: PlannedRun, found: Prediction, said: Account) -> PlannedRun:
    days, energy = _assumed(said.days), _assumed(said.gigawatt_hours)
    memory = max(found.memory.values(), key=lambda part: part.evidence is Evidence.analytic)
    told = {"memory": memory, "step_seconds": found.step_seconds, "mfu": found.mfu}
    return dataclasses.replace(
        counted,
        devices=found.devices,
        layout=found.layout,
        alternatives=_alternatives(found),
        memory=found.memory,
        memory_limit=found.memory_limit,
        step_seconds=found.step_seconds,
        mfu=found.mfu,
        days=days,
        gigawatt_hours=energy,
        mtbf_hours=said.way.mtbf,
        interruptions=said.interruptions,
        recovery=tuple(map(_way, said.ways)),
        verdict=said.verdict,
        notes=found.notes,
        evidence=COUNTED | labels({**told, "days": days, "gigawatt_hours": energy}),
    )


def _alternatives(found: Prediction) -> tuple[Alternative, ...]:
    if found.choice is None:
        return ()
    calibrated = found.step_seconds.value / found.choice.best.seconds
    others = (*found.choice.runners_up, *found.choice.rejected)
    return tuple(Alternative(one.layout, one.seconds * calibrated, one.bytes, one.why) for one in others)


def _assumed(number: Number | None) -> Number | None:
    """What restarts, spares and saves cost is assumed, so what counts with them is no better."""
    return number and dataclasses.replace(number, evidence=Evidence.assumed)


def _way(way: Outlook) -> Way:
    return Way(way.recovery.name, 60 * way.daly, 60 * way.young, way.goodput)


def _machine(
    cluster: Cluster, members: Sequence[Member], planned: tuple[PlannedRun, ...], models: Sequence[ModelShape]
) -> Machine:
    days, shares = last(planned), tuple(_shares(cluster, members))
    busy = sum(run.devices * run.days.value for run in planned if run.days)
    return Machine(
        name=cluster.name,
        chips=cluster.chips,
        shares=shares,
        days=days,
        utilisation=busy / (cluster.chips * days.value) if days else 0.0,
        meter=_meter(cluster, shares),
        mixed=_mixed(cluster, planned, models) if len(cluster.partitions) > 1 else None,
    )


def _shares(cluster: Cluster, members: Sequence[Member]) -> list[Share]:
    by_kind = {part.name: [m for m in members if m.kind == part.name] for part in cluster.partitions}
    return [
        Share(
            part.name,
            part.chip.name,
            part.chips,
            _at_once(by_kind[part.name]),
            tuple(member.model.name for member in by_kind[part.name]),
        )
        for part in cluster.partitions
    ]


def _at_once(members: Sequence[Member]) -> int:
    """Chips that are given to some run at one moment."""
    turns = {member.slot: member.chips for member in members if member.slot is not None}
    return sum(turns.values()) + sum(member.chips for member in members if member.slot is None)


def _meter(cluster: Cluster, shares: Sequence[Share]) -> Meter:
    whole = whole_draw(cluster)
    given = sum(draw(cluster, cluster.part(share.kind), share.given).watts for share in shares)
    site = whole.site_watts and whole.site_watts / 1e6
    return Meter(whole.watts / 1e6, given / 1e6, site, site is None or given / 1e6 <= site)


def _mixed(cluster: Cluster, apart: tuple[PlannedRun, ...], models: Sequence[ModelShape]) -> Mixed:
    one = as_one(cluster)
    together = _planned(one, share_out(models, one))
    days, alone = _until_all_end(together), _until_all_end(apart)
    return Mixed(mixing(cluster).efficiency, days, alone, days / alone if days and alone else None)


def _until_all_end(planned: tuple[PlannedRun, ...]) -> float | None:
    days = last(planned)
    return days.value if days and all(run.days for run in planned) else None
