"""A sweep on this machine: as it would be placed, with the times that earlier runs took here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.plan.cost_model.layouts import Layout
from harness.plan.cost_model.precision import run_precision
from harness.plan.plan_types import (
    EXACT_COUNTS,
    DescribedRun,
    PlannedMachine,
    PlannedRun,
    SweepPlan,
    evidence_labels,
)
from harness.plan.predict import MEMORY_UNCERTAINTY, EvidenceKind, PlanEstimate

DAY = 86_400


class TimeEstimate(Protocol):
    """Wall seconds of a run (`harness.launcher.cost.step_cost.Estimate`)."""

    @property
    def train(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def runs(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def factor(self) -> float: ...


class PlacementForecast(Protocol):
    """Who trains where and when (`harness.launcher.placement.forecast.Outlook`)."""

    @property
    def estimates(self) -> Mapping[str, TimeEstimate]: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def plan_on_this_machine(
    runs: Sequence[DescribedRun],
    forecast: PlacementForecast,
    starts: Mapping[str, float],
    *,
    seconds: float,
    devices: int,
    utilisation: float,
) -> SweepPlan:
    """Of runs on the meshes that they were given; `starts`: seconds after which each begins; `seconds` until
    the last has ended."""
    planned = tuple(_plan_run(run, forecast.estimates[run.name], starts[run.name] / DAY) for run in runs)
    evidence = _evidence_kind(min(forecast.estimates.values(), key=lambda took: took.runs))
    whole = PlanEstimate(seconds / DAY, forecast.low / DAY, forecast.high / DAY, evidence)
    return SweepPlan(planned, PlannedMachine(runs[0].config.cluster.name, devices, (), whole, utilisation))


def _plan_run(run: DescribedRun, estimate: TimeEstimate, begins: float) -> PlannedRun:
    facts, mesh, evidence = run.facts, run.config.mesh, _evidence_kind(estimate)
    doubt = estimate.low / estimate.seconds, estimate.high / estimate.seconds
    step = estimate.train / estimate.steps
    step_seconds = PlanEstimate(step, doubt[0] * step, doubt[1] * step, evidence)
    days = PlanEstimate(estimate.seconds / DAY, estimate.low / DAY, estimate.high / DAY, evidence)
    memory = _memory(run)
    told = {"memory": memory["activations"], "step_seconds": step_seconds, "days": days}
    return PlannedRun(
        name=run.name,
        parameters=facts.parameters,
        active_parameters=facts.active_parameters or facts.non_embedding,
        flops_per_token=facts.flops_per_token,
        tokens=facts.steps * facts.tokens_per_step,
        kind=run.config.cluster.platform,
        chips=mesh.devices,
        devices=mesh.devices,
        layout=_layout(run),
        memory=memory,
        step_seconds=step_seconds,
        begins=begins,
        days=days,
        evidence=EXACT_COUNTS | evidence_labels(told),
    )


def _evidence_kind(estimate: TimeEstimate) -> EvidenceKind:
    if estimate.factor != 1:
        return EvidenceKind.corrected
    return EvidenceKind.measured if estimate.runs else EvidenceKind.assumed


def _layout(run: DescribedRun) -> Layout:
    mesh, config = run.config.mesh, run.config
    parts = mesh.data * mesh.fsdp * mesh.expert * config.compute.microbatches
    return Layout(
        data=mesh.data,
        fsdp=mesh.fsdp,
        tensor=mesh.tensor,
        expert=mesh.expert,
        context=mesh.context,
        microbatch=config.scale.batch // parts,
        remat=config.compute.remat,
    )


def _memory(run: DescribedRun) -> dict[str, PlanEstimate]:
    """As `harness.launcher.cost.step_cost.device_bytes`, by part: `fsdp` and `tensor` split the state,
    `data`, `fsdp`,
    `expert` and `context` the tokens."""
    facts, mesh, recipe = run.facts, run.config.mesh, run_precision(run.config, run.facts)
    each = {
        "weights": recipe.weight_bytes,
        "optimizer": recipe.optimizer_bytes,
        "gradients": recipe.gradient_bytes,
    }
    seen = facts.activation_bytes / (mesh.data * mesh.fsdp * mesh.expert * mesh.context)
    activations = PlanEstimate.within(seen, MEMORY_UNCERTAINTY, EvidenceKind.assumed)
    share = facts.parameters / (mesh.fsdp * mesh.tensor)
    kept = {name: PlanEstimate.exact(size * share) for name, size in each.items()}
    return kept | {"activations": activations}
