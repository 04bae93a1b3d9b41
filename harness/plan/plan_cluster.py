"""A sweep on a machine that is not here: chips shared out, each run predicted, failures and power counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.config.schema.cluster import ClusterConfig
from harness.plan.allocation.allocated_run import AllocatedRun
from harness.plan.allocation.mixed_chips import as_single_kind, mixed_efficiency
from harness.plan.allocation.run_days import RunCosts, run_costs
from harness.plan.allocation.share_chips import allocate_chips
from harness.plan.cluster.clusters import Cluster, cluster_from_config
from harness.plan.cluster.power import machine_watts, meter_watts
from harness.plan.cost_model.model_size import ModelShape, shape_from_facts
from harness.plan.plan_types import (
    EXACT_COUNTS,
    Alternative,
    DescribedRun,
    MixedChips,
    PlannedMachine,
    PlannedRun,
    PowerUse,
    SweepPlan,
    evidence_labels,
    last_end,
)
from harness.plan.predict import CostPrediction, EvidenceKind, PlanEstimate
from harness.records.sweep.plan_file import ChipShare


def plan_on_cluster(runs: Sequence[DescribedRun], config: ClusterConfig) -> SweepPlan:
    """Raises UserError for a number of the cluster that is missing, and where runs outnumber fast domains.
    A run that fits nowhere stops no other: its counts are there, and why."""
    cluster = cluster_from_config(config)
    models = [shape_from_facts(run.config, run.facts, run.name) for run in runs]
    members = allocate_chips(models, cluster)
    planned = _plan_runs(cluster, members)
    return SweepPlan(planned, _machine(cluster, members, planned, models))


def _plan_runs(cluster: Cluster, members: Sequence[AllocatedRun]) -> tuple[PlannedRun, ...]:
    """In the order of the members; each begins when those before it on its slot have ended."""
    ends: dict[tuple[str, int | None], float] = {}
    found = [_plan_run(cluster, member) for member in members]
    for index in sorted(range(len(members)), key=lambda index: members[index].start_days):
        place = members[index].kind, members[index].slot
        begins = 0.0 if members[index].slot is None else ends.get(place, 0.0)
        found[index] = run = dataclasses.replace(found[index], begins=begins)
        ends[place] = begins + (run.days.value if run.days else 0.0)
    return tuple(found)


def _plan_run(cluster: Cluster, member: AllocatedRun) -> PlannedRun:
    model, found = member.model, member.prediction
    counted = PlannedRun(
        name=model.name,
        parameters=model.parameters,
        active_parameters=model.active_parameters,
        flops_per_token=model.flops_per_token,
        tokens=model.tokens,
        kind=member.kind,
        chips=member.chips,
        devices=0,
        chip_memory=cluster.partition(member.kind).chip.memory,
        verdict=member.refusal,
        evidence=EXACT_COUNTS,
    )
    if found is None:
        return counted
    return _with_prediction(counted, found, run_costs(cluster, found, member.chips, member.kind))


def _with_prediction(counted: PlannedRun, found: CostPrediction, said: RunCosts) -> PlannedRun:
    days, energy = _as_assumed(said.days), _as_assumed(said.gigawatt_hours)
    memory = max(found.memory.values(), key=lambda part: part.evidence is EvidenceKind.analytic)
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
        mtbf_hours=said.mtbf_hours,
        interruptions=said.interruptions,
        recovery=said.options,
        verdict=said.verdict,
        notes=found.notes,
        evidence=EXACT_COUNTS | evidence_labels({**told, "days": days, "gigawatt_hours": energy}),
    )


def _alternatives(found: CostPrediction) -> tuple[Alternative, ...]:
    if found.choice is None:
        return ()
    calibrated = found.step_seconds.value / found.choice.best.seconds
    others = (*found.choice.runners_up, *found.choice.rejected)
    return tuple(Alternative(one.layout, one.seconds * calibrated, one.bytes, one.why) for one in others)


def _as_assumed(number: PlanEstimate | None) -> PlanEstimate | None:
    """What restarts, spares and saves cost is assumed, so what counts with them is no better."""
    return number and dataclasses.replace(number, evidence=EvidenceKind.assumed)


def _machine(
    cluster: Cluster,
    members: Sequence[AllocatedRun],
    planned: tuple[PlannedRun, ...],
    models: Sequence[ModelShape],
) -> PlannedMachine:
    days, shares = last_end(planned), tuple(_chip_shares(cluster, members))
    busy = sum(run.devices * run.days.value for run in planned if run.days)
    return PlannedMachine(
        name=cluster.name,
        chips=cluster.chips,
        shares=shares,
        days=days,
        utilisation=busy / (cluster.chips * days.value) if days else 0.0,
        meter=_power_use(cluster, shares),
        mixed=_mixed_chips(cluster, planned, models) if len(cluster.partitions) > 1 else None,
    )


def _chip_shares(cluster: Cluster, members: Sequence[AllocatedRun]) -> list[ChipShare]:
    by_kind = {part.name: [m for m in members if m.kind == part.name] for part in cluster.partitions}
    return [
        ChipShare(
            part.name,
            part.chip.name,
            part.chips,
            _chips_at_once(by_kind[part.name]),
            tuple(member.model.name for member in by_kind[part.name]),
        )
        for part in cluster.partitions
    ]


def _chips_at_once(members: Sequence[AllocatedRun]) -> int:
    """Chips that are given to some run at one moment."""
    turns = {member.slot: member.chips for member in members if member.slot is not None}
    return sum(turns.values()) + sum(member.chips for member in members if member.slot is None)


def _power_use(cluster: Cluster, shares: Sequence[ChipShare]) -> PowerUse:
    given = sum(meter_watts(cluster, cluster.partition(share.kind), share.given) for share in shares) / 1e6
    site = cluster.site_watts and cluster.site_watts / 1e6
    return PowerUse(machine_watts(cluster) / 1e6, given, site, site is None or given <= site)


def _mixed_chips(cluster: Cluster, apart: tuple[PlannedRun, ...], models: Sequence[ModelShape]) -> MixedChips:
    one = as_single_kind(cluster)
    together = _plan_runs(one, allocate_chips(models, one))
    days, alone = _days_until_all_end(together), _days_until_all_end(apart)
    return MixedChips(mixed_efficiency(cluster), days, alone, days / alone if days and alone else None)


def _days_until_all_end(planned: tuple[PlannedRun, ...]) -> float | None:
    days = last_end(planned)
    return days.value if days and all(run.days for run in planned) else None
