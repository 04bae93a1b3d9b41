"""A sweep on this machine: as it would be placed, with the times that earlier runs took here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.plan.cost_model.layouts import Layout
from harness.plan.cost_model.precision import recipe_of
from harness.plan.plan_types import COUNTED, Described, Machine, PlannedRun, Sheet, labels
from harness.plan.predict import MEMORY_DOUBT, Evidence, Number

DAY = 86_400


class Took(Protocol):
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


class Placed(Protocol):
    """Who trains where and when (`harness.launcher.placement.forecast.Outlook`)."""

    @property
    def estimates(self) -> Mapping[str, Took]: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def plan_here(
    runs: Sequence[Described],
    placed: Placed,
    starts: Mapping[str, float],
    *,
    seconds: float,
    devices: int,
    utilisation: float,
) -> Sheet:
    """Of runs on the meshes that they were given; `starts`: seconds after which each begins; `seconds` until
    the last has ended."""
    planned = tuple(_planned(run, placed.estimates[run.name], starts[run.name] / DAY) for run in runs)
    evidence = _evidence(min(placed.estimates.values(), key=lambda took: took.runs))
    whole = Number(seconds / DAY, placed.low / DAY, placed.high / DAY, evidence)
    return Sheet(planned, Machine(runs[0].config.cluster.name, devices, (), whole, utilisation))


def _planned(run: Described, took: Took, begins: float) -> PlannedRun:
    facts, mesh, evidence = run.facts, run.config.mesh, _evidence(took)
    doubt = took.low / took.seconds, took.high / took.seconds
    step = took.train / took.steps
    step_seconds = Number(step, doubt[0] * step, doubt[1] * step, evidence)
    days = Number(took.seconds / DAY, took.low / DAY, took.high / DAY, evidence)
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
        evidence=COUNTED | labels(told),
    )


def _evidence(took: Took) -> Evidence:
    if took.factor != 1:
        return Evidence.corrected
    return Evidence.measured if took.runs else Evidence.assumed


def _layout(run: Described) -> Layout:
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


def _memory(run: Described) -> dict[str, Number]:
    """As `harness.launcher.cost.step_cost.device_bytes`, by part: `fsdp` and `tensor` split the state,
    `data`, `fsdp`,
    `expert` and `context` the tokens."""
    facts, mesh, recipe = run.facts, run.config.mesh, recipe_of(run.config, run.facts)
    each = {"weights": recipe.weight, "optimizer": recipe.optimizer, "gradients": recipe.gradient}
    seen = facts.activation_bytes / (mesh.data * mesh.fsdp * mesh.expert * mesh.context)
    activations = Number(seen, seen / MEMORY_DOUBT, seen * MEMORY_DOUBT, Evidence.assumed)
    share = facts.parameters / (mesh.fsdp * mesh.tensor)
    kept = {name: Number.exact(size * share) for name, size in each.items()}
    return kept | {"activations": activations}
