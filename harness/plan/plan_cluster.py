"""Plan of a sweep on a described cluster: chips for each run, predictions, failures and power."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from harness.config.schema.cluster import ClusterConfig
from harness.core.errors import UserError
from harness.estimate.clusters import Cluster, cluster_from_config, machine_watts, meter_watts
from harness.estimate.model_size import ModelShape, shape_from_facts
from harness.plan.allocation.allocated_run import AllocatedRun
from harness.plan.allocation.mixed_chips import as_single_kind, mixed_efficiency
from harness.plan.allocation.run_days import RunCosts, run_costs
from harness.plan.allocation.share_chips import allocate_chips
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

Runs = tuple[PlannedRun, ...]


def plan_on_cluster(runs: Sequence[DescribedRun], config: ClusterConfig) -> SweepPlan:
    """Plan every run of a sweep. A run that fits nowhere has its counts and the reason, and stops no other.
    Raises UserError if the cluster lacks a number, or for a model whose layers are not known."""
    for run in runs:
        if not run.facts.is_known:
            raise UserError(
                f"{run.name}: the speed of model.kind={run.config.model.kind} on a described cluster cannot"
                " be known, since its layers are its own. Plan it without a cluster, on a machine that has"
                " trained it, or plan a decoder."
            )
    cluster = cluster_from_config(config)
    models = [shape_from_facts(run.config, run.facts, run.name) for run in runs]
    members = allocate_chips(models, cluster)
    planned = _plan_runs(cluster, members)
    return SweepPlan(planned, _machine(cluster, members, planned, models))


def _plan_runs(cluster: Cluster, members: Sequence[AllocatedRun]) -> Runs:
    """Return the runs in the order of `members`; on a slot, each begins when the run before it has ended."""
    ends: dict[tuple[str, int | None], float] = {}
    planned = [_plan_run(cluster, member) for member in members]
    for index in sorted(range(len(members)), key=lambda index: members[index].start_days):
        place = members[index].kind, members[index].slot
        begins = 0.0 if members[index].slot is None else ends.get(place, 0.0)
        planned[index] = run = dataclasses.replace(planned[index], begins=begins)
        ends[place] = begins + (run.days.value if run.days else 0.0)
    return tuple(planned)


def _plan_run(cluster: Cluster, member: AllocatedRun) -> PlannedRun:
    model, prediction = member.model, member.prediction
    planned = PlannedRun(
        name=model.name,
        parameters=model.parameters,
        active_parameters=model.active_parameters,
        flops_per_token=model.flops_per_token,
        tokens=model.tokens,
        batch=model.batch,
        fixed=model.limits.fixed if model.limits else (),
        kind=member.kind,
        chips=member.chips,
        devices=0,
        chip_memory=cluster.partition(member.kind).chip.memory,
        verdict=member.refusal,
        evidence=EXACT_COUNTS,
    )
    if prediction is None:
        return planned
    return _with_prediction(planned, prediction, run_costs(cluster, prediction, member.chips, member.kind))


def _with_prediction(planned: PlannedRun, prediction: CostPrediction, costs: RunCosts) -> PlannedRun:
    days, energy = _as_assumed(costs.days), _as_assumed(costs.gigawatt_hours)
    memory = max(prediction.memory.values(), key=lambda part: part.evidence is EvidenceKind.analytic)
    estimates = {"memory": memory, "step_seconds": prediction.step_seconds, "mfu": prediction.mfu}
    return dataclasses.replace(
        planned,
        devices=prediction.devices,
        layout=prediction.layout,
        alternatives=_alternatives(prediction),
        memory=prediction.memory,
        memory_limit=prediction.memory_limit,
        step_seconds=prediction.step_seconds,
        mfu=prediction.mfu,
        days=days,
        gigawatt_hours=energy,
        mtbf_hours=costs.mtbf_hours,
        interruptions=costs.interruptions,
        recovery=costs.options,
        verdict=costs.verdict,
        notes=prediction.notes,
        evidence=EXACT_COUNTS | evidence_labels({**estimates, "days": days, "gigawatt_hours": energy}),
    )


def _alternatives(prediction: CostPrediction) -> tuple[Alternative, ...]:
    if prediction.choice is None:
        return ()
    factor = prediction.step_seconds.value / prediction.choice.best.seconds
    losers = (*prediction.choice.runners_up, *prediction.choice.rejected)
    return tuple(Alternative(row.layout, row.seconds * factor, row.bytes, row.why) for row in losers)


def _as_assumed(number: PlanEstimate | None) -> PlanEstimate | None:
    """Return a number with evidence `assumed`, since the costs of restarts, spares and saves are assumed."""
    return number and dataclasses.replace(number, evidence=EvidenceKind.assumed)


def _machine(
    cluster: Cluster, members: Sequence[AllocatedRun], planned: Runs, models: Sequence[ModelShape]
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


def _chip_shares(cluster: Cluster, members: Sequence[AllocatedRun]) -> Iterator[ChipShare]:
    for part in cluster.partitions:
        runs = [member for member in members if member.kind == part.name]
        names = tuple(member.model.name for member in runs)
        yield ChipShare(part.name, part.chip.name, part.chips, _chips_at_once(runs), names)


def _chips_at_once(members: Sequence[AllocatedRun]) -> int:
    """Return the number of chips that runs have at any one moment."""
    slots = {member.slot: member.chips for member in members if member.slot is not None}
    return sum(slots.values()) + sum(member.chips for member in members if member.slot is None)


def _power_use(cluster: Cluster, shares: Sequence[ChipShare]) -> PowerUse:
    megawatts = (
        sum(meter_watts(cluster, cluster.partition(share.kind), share.given) for share in shares) / 1e6
    )
    site = cluster.site_watts and cluster.site_watts / 1e6
    return PowerUse(machine_watts(cluster) / 1e6, megawatts, site, site is None or megawatts <= site)


def _mixed_chips(cluster: Cluster, by_kind: Runs, models: Sequence[ModelShape]) -> MixedChips:
    single_kind = as_single_kind(cluster)
    mixed_runs = _plan_runs(single_kind, allocate_chips(models, single_kind))
    days, days_apart = _days_until_all_end(mixed_runs), _days_until_all_end(by_kind)
    ratio = days / days_apart if days and days_apart else None
    return MixedChips(mixed_efficiency(cluster), days, days_apart, ratio)


def _days_until_all_end(planned: Runs) -> float | None:
    days = last_end(planned)
    return days.value if days and all(run.days for run in planned) else None
