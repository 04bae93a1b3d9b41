"""Plan of a sweep on this machine: placed as a launch would place it, with the times of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.core.interval import Interval
from harness.estimate.layouts import config_layout
from harness.estimate.model_size import shape_from_facts
from harness.estimate.ways_to_fit import layout_memory
from harness.plan.plan_types import (
    EXACT_COUNTS,
    DescribedRun,
    PlannedMachine,
    PlannedRun,
    SweepPlan,
    evidence_labels,
)
from harness.plan.predict import EvidenceKind, PlanEstimate, memory_estimates

DAY = 86_400
"""Seconds of a day."""


class _TimeEstimate(Protocol):
    """Wall seconds of a run and their interval (`launcher.cost.step_cost.RunEstimate`): `train` in all
    training steps, `factor` that corrected them (1: none), and the earlier runs behind them (0: assumed)."""

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


def plan_on_this_machine(
    runs: Sequence[DescribedRun],
    estimates: Mapping[str, _TimeEstimate],
    starts: Mapping[str, float],
    *,
    makespan: Interval,
    devices: int,
    utilisation: float,
) -> SweepPlan:
    """Plan runs on the meshes that they have. `starts`: seconds after which each run begins. `makespan`:
    seconds until the last run has ended."""
    planned = tuple(_plan_run(run, estimates[run.name], starts[run.name] / DAY) for run in runs)
    evidence = _evidence_kind(min(estimates.values(), key=lambda estimate: estimate.runs))
    days = PlanEstimate(makespan.value / DAY, makespan.low / DAY, makespan.high / DAY, evidence)
    return SweepPlan(planned, PlannedMachine(runs[0].config.cluster.name, devices, (), days, utilisation))


def _plan_run(run: DescribedRun, estimate: _TimeEstimate, begins: float) -> PlannedRun:
    facts, mesh, evidence = run.facts, run.config.mesh, _evidence_kind(estimate)
    low, high = estimate.low / estimate.seconds, estimate.high / estimate.seconds
    step = estimate.train / estimate.steps
    step_seconds = PlanEstimate(step, low * step, high * step, evidence)
    days = PlanEstimate(estimate.seconds / DAY, estimate.low / DAY, estimate.high / DAY, evidence)
    layout = config_layout(run.config)
    parts = layout_memory(shape_from_facts(run.config, facts, run.name), layout)
    memory = memory_estimates(parts, EvidenceKind.assumed)
    estimates = {"memory": memory["activations"], "step_seconds": step_seconds, "days": days}
    return PlannedRun(
        name=run.name,
        parameters=facts.parameters,
        active_parameters=facts.active_parameters or facts.non_embedding,
        flops_per_token=facts.flops_per_token,
        tokens=facts.steps * facts.tokens_per_step,
        batch=run.config.scale.batch,
        kind=run.config.cluster.platform,
        chips=mesh.devices,
        devices=mesh.devices,
        layout=layout,
        memory=memory,
        step_seconds=step_seconds,
        begins=begins,
        days=days,
        evidence=EXACT_COUNTS | evidence_labels(estimates),
    )


def _evidence_kind(estimate: _TimeEstimate) -> EvidenceKind:
    if estimate.factor != 1:
        return EvidenceKind.corrected
    return EvidenceKind.measured if estimate.runs else EvidenceKind.assumed
