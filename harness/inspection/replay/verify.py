"""A stretch of a run made again, from a checkpoint or its start, and held against what is on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compare.checkpoints.replay_check import (
    ReplayResult,
    StateCheck,
    StepRow,
    check_state,
    find_mismatches,
    largest_difference,
)
from harness.config.schema.run import Config
from harness.core.cpu_flags import cpu_env, disable_malloc_trim
from harness.core.errors import UserError
from harness.inspection.replay.step_range import Stretch, find_stretch
from harness.models.registry import import_modules
from harness.records.run import environment
from harness.records.run.checkpoint_manifest import read_manifest
from harness.records.run.config_file import stored_config_hash
from harness.records.run.environment import Environment, EnvironmentChange
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import code_at, code_of, package_versions

if TYPE_CHECKING:
    from harness.training.programs.run_programs import RunPrograms
    from harness.training.schedule import Segment
    from harness.training.step import TrainState

SHORT = 12
"""Digits of a hash that are shown."""


def verify(where: Path | str, steps: int | None = None) -> ReplayResult:
    """Replays RUN from RUN@STEP to the next checkpoint, or so many steps, and compares them bit by bit.

    Without a step it starts at the last one from which a checkpoint follows; 0 is the start, drawn anew.
    Nothing is written into the run. Raises UserError where there is nothing to replay, or not on this data
    and these devices.
    """
    stretch = find_stretch(where, steps)
    named = stretch.named
    then = environment.environment_at(named.provenance.surroundings, stretch.first)
    _prepare_process(named.config, then)
    lane = _open_lane(stretch)
    told, states = _replayed(stretch, lane)
    differing = find_mismatches(_recorded(stretch), told)
    return ReplayResult(
        name=_name(stretch),
        first=stretch.first,
        last=stretch.last,
        equal=len(told) - len({each.step for each in differing}),
        columns=tuple(column for column in told[0] if column != "step"),
        parting=differing[0] if differing else None,
        largest=largest_difference(differing, "loss"),
        states=tuple(states),
        changes=tuple(_changes(stretch, then, lane)),
        notes=tuple(_notes(stretch, then)),
    )


def _prepare_process(config: Config, then: Environment | None) -> None:
    """As the worker had it: device count and, under the same jaxlib, flags; then users' modules. What several
    processes trained is replayed by one that has all their devices, and adds up as they did."""
    fresh = "jax" not in sys.modules
    if fresh and config.cluster.platform == "cpu":
        devices = then.process_devices if then and not then.collectives else config.mesh.devices
        env = cpu_env(devices)
        if then and then.versions.get("jaxlib") == package_versions()["jaxlib"]:
            env["XLA_FLAGS"] = then.flags
        os.environ.update(env)
        disable_malloc_trim()
    import jax

    from harness.parallel.processes.jax_distributed import initialize_single

    # Programs come from a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if fresh and then and then.collectives:
        initialize_single(config.mesh.devices)
    import_modules(config)


def _open_lane(stretch: Stretch) -> RunPrograms:
    """The run's lane, without anything to evaluate on. Raises UserError for other data or too few devices."""
    import jax

    from harness.data import describe_data, open_data
    from harness.training.parent_checkpoint import rebuild_checkpoint_model
    from harness.training.programs.run_programs import make_run_programs

    named, path = stretch.named, stretch.run.path
    config, facts = named.config, named.provenance.facts
    if describe_data(config.data, config.evaluation.tokens).fingerprint != facts.data_fingerprint:
        raise UserError(f"{path}: its data is not what it was trained on; put those files back to replay it")
    devices, needed = jax.devices(), config.mesh.devices
    if len(devices) < needed:
        raise UserError(
            f"{path} was trained on {needed} devices, and here are {len(devices)}: replay it there"
        )
    model = rebuild_checkpoint_model(named)
    sampler = open_data(config.data).sampler(config.scale.batch, config.data_seed)
    return make_run_programs(config, model, devices[:needed], sampler.batch, {})


def _replayed(stretch: Stretch, lane: RunPrograms) -> tuple[list[StepRow], list[StateCheck]]:
    """The rows of the stretch, and its state against each checkpoint on the way."""
    from harness.data import update_example_hash
    from harness.training.schedule import learning_rate
    from harness.training.step import METRICS

    course, config = _course(stretch), stretch.named.config
    state, example_hash = _start(stretch, lane)
    told: list[StepRow] = []
    states = []
    for step in range(stretch.first, stretch.last):
        batch = lane.get_batch(step)
        rate = config.optimizer.learning_rate * learning_rate(config.schedule, course, step)
        state, metrics = lane.step(state, lane.put_batch(batch), rate)
        example_hash = update_example_hash(example_hash, batch.ids_B)
        values = map(float, np.asarray(metrics))  # only experts have the last two
        told.append({"step": step + 1} | dict(zip(METRICS, values, strict=False)) | {"learning_rate": rate})
        if step + 1 in stretch.kept:
            states.append(_checked(stretch, lane, step + 1, state, example_hash))
    return told, states


def _course(stretch: Stretch) -> Segment:
    """The run's own, or that of the branch."""
    from harness.training.schedule import branch_segments, main_segment

    named = stretch.named
    if (parent := named.provenance.parent) is None:
        return main_segment(named.config)
    return next(each for each in branch_segments(named.config) if each.share == parent["share"])


def _start(stretch: Stretch, lane: RunPrograms) -> tuple[TrainState, str]:
    """The state before the first step, and the hash of the examples up to there."""
    from harness.training.output.checkpointer import restore
    from harness.training.parent_checkpoint import load_parent_weights

    if stretch.start is None:
        base = stretch.named.provenance.facts.base
        return lane.init_state(load_parent_weights(base) if base else None), ""
    state = restore(stretch.start.run, stretch.first, lane.abstract_state())
    return state, stretch.start.manifest.example_hash


def _checked(
    stretch: Stretch, lane: RunPrograms, step: int, state: TrainState, example_hash: str
) -> StateCheck:
    from harness.training.output.checkpointer import restore

    manifest = read_manifest(stretch.run, step)
    saved = _arrays(restore(stretch.run, step, lane.abstract_state()))
    same = manifest is not None and manifest.example_hash == example_hash
    return check_state(step, saved, _arrays(state), same_examples=same)


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    """Every leaf by its path, on the host."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _recorded(stretch: Stretch) -> list[dict[str, Any]]:
    rows = read_curve(stretch.run, "steps")
    inside = (rows["step"] > stretch.first) & (rows["step"] <= stretch.last)
    return rows.filter(inside).to_dicts()


def _changes(stretch: Stretch, then: Environment | None, lane: RunPrograms) -> Iterator[EnvironmentChange]:
    """What of a replay's conditions is otherwise than the record says."""
    from harness.training.programs.compile_cache import current_environment

    named = stretch.named
    trained, here = code_at(named.provenance.code_hash, stretch.first), code_of(named.config)
    if trained != here:
        yield EnvironmentChange("code", trained[:SHORT], here[:SHORT])
    written, read = named.provenance.config_hash, stored_config_hash(named.run.config)
    if written != read:
        yield EnvironmentChange("config", written[:SHORT], read[:SHORT])
    if then is not None:
        yield from environment.environment_changes(then, current_environment(lane.devices))


def _notes(stretch: Stretch, then: Environment | None) -> Iterator[str]:
    yield from (f"{sentence[0].upper()}{sentence[1:]}." for sentence in stretch.skipped)
    if then is None:
        yield "Its record does not say on which devices and under which flags it was trained."


def _name(stretch: Stretch) -> str:
    record = stretch.named.provenance
    name = f"{record.scale}/{record.variant}/seed{record.seed}"
    return name if record.parent is None else f"{name}/{stretch.run.path.resolve().name}"
