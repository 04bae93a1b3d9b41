"""A stretch of a run made again, from a checkpoint or its start, and held against what is on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compare.checkpoints.replay_check import Replay, Row, StateCheck, check_state, largest, partings
from harness.config.schema.run import Config
from harness.core.cpu_flags import cpu_profile, keep_memory
from harness.core.errors import UserError
from harness.inspection.replay.step_range import Stretch, find_stretch
from harness.models.user_modules import import_modules
from harness.records.run import environment
from harness.records.run.checkpoint_manifest import read_manifest
from harness.records.run.config_file import stored_hash
from harness.records.run.environment import Changed, Surroundings
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import code_at, code_of, package_versions

if TYPE_CHECKING:
    from harness.training.programs.run_programs import Lane
    from harness.training.schedule import Course
    from harness.training.step import TrainState

SHORT = 12
"""Digits of a hash that are shown."""


def verify(where: Path | str, steps: int | None = None) -> Replay:
    """Replays RUN from RUN@STEP to the next checkpoint, or so many steps, and compares them bit by bit.

    Without a step it starts at the last one from which a checkpoint follows; 0 is the start, drawn anew.
    Nothing is written into the run. Raises UserError where there is nothing to replay, or not on this data
    and these devices.
    """
    stretch = find_stretch(where, steps)
    named = stretch.named
    then = environment.at(named.provenance.surroundings, stretch.first)
    _prepare_process(named.config, then)
    lane = _open_lane(stretch)
    told, states = _replayed(stretch, lane)
    differing = partings(_recorded(stretch), told)
    return Replay(
        name=_name(stretch),
        first=stretch.first,
        last=stretch.last,
        equal=len(told) - len({each.step for each in differing}),
        columns=tuple(column for column in told[0] if column != "step"),
        parting=differing[0] if differing else None,
        largest=largest(differing, "loss"),
        states=tuple(states),
        changes=tuple(_changes(stretch, then, lane)),
        notes=tuple(_notes(stretch, then)),
    )


def _prepare_process(config: Config, then: Surroundings | None) -> None:
    """As the worker had it: device count and, under the same jaxlib, flags; then users' modules. What several
    processes trained is replayed by one that has all their devices, and adds up as they did."""
    fresh = "jax" not in sys.modules
    if fresh and config.cluster.platform == "cpu":
        devices = then.process_devices if then and not then.collectives else config.mesh.devices
        env = cpu_profile(devices)
        if then and then.versions.get("jaxlib") == package_versions()["jaxlib"]:
            env["XLA_FLAGS"] = then.flags
        os.environ.update(env)
        keep_memory()
    import jax

    from harness.parallel.processes.jax_distributed import join_alone

    # Programs come from a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if fresh and then and then.collectives:
        join_alone(config.mesh.devices)
    import_modules(config)


def _open_lane(stretch: Stretch) -> Lane:
    """The run's lane, without anything to evaluate on. Raises UserError for other data or too few devices."""
    import jax

    from harness.data import describe_data, open_data
    from harness.training.parent_checkpoint import model_of
    from harness.training.programs.run_programs import open_lane

    named, path = stretch.named, stretch.run.path
    config, facts = named.config, named.provenance.facts
    if describe_data(config.data, config.evaluation.tokens).fingerprint != facts.data_fingerprint:
        raise UserError(f"{path}: its data is not what it was trained on; put those files back to replay it")
    devices, needed = jax.devices(), config.mesh.devices
    if len(devices) < needed:
        raise UserError(
            f"{path} was trained on {needed} devices, and here are {len(devices)}: replay it there"
        )
    model = model_of(named)
    sampler = open_data(config.data).sampler(config.scale.batch, config.data_seed)
    return open_lane(config, model, devices[:needed], sampler.batch, {})


def _replayed(stretch: Stretch, lane: Lane) -> tuple[list[Row], list[StateCheck]]:
    """The rows of the stretch, and its state against each checkpoint on the way."""
    from harness.data import roll
    from harness.training.schedule import learning_rate
    from harness.training.step import METRICS

    course, config = _course(stretch), stretch.named.config
    state, example_hash = _start(stretch, lane)
    told: list[Row] = []
    states = []
    for step in range(stretch.first, stretch.last):
        batch = lane.get_batch(step)
        rate = config.optimizer.learning_rate * learning_rate(config.schedule, course, step)
        state, metrics = lane.step(state, lane.put(batch), rate)
        example_hash = roll(example_hash, batch.ids_B)
        values = map(float, np.asarray(metrics))  # only experts have the last two
        told.append({"step": step + 1} | dict(zip(METRICS, values, strict=False)) | {"learning_rate": rate})
        if step + 1 in stretch.kept:
            states.append(_checked(stretch, lane, step + 1, state, example_hash))
    return told, states


def _course(stretch: Stretch) -> Course:
    """The run's own, or that of the branch."""
    from harness.training.schedule import branch_courses, main_course

    named = stretch.named
    if (parent := named.provenance.parent) is None:
        return main_course(named.config)
    return next(each for each in branch_courses(named.config) if each.share == parent["share"])


def _start(stretch: Stretch, lane: Lane) -> tuple[TrainState, str]:
    """The state before the first step, and the hash of the examples up to there."""
    from harness.training.output.checkpointer import restore
    from harness.training.parent_checkpoint import base_weights

    if stretch.start is None:
        base = stretch.named.provenance.facts.base
        return lane.initial(base_weights(base) if base else None), ""
    state = restore(stretch.start.run, stretch.first, lane.abstract_state())
    return state, stretch.start.manifest.example_hash


def _checked(stretch: Stretch, lane: Lane, step: int, state: TrainState, example_hash: str) -> StateCheck:
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


def _changes(stretch: Stretch, then: Surroundings | None, lane: Lane) -> Iterator[Changed]:
    """What of a replay's conditions is otherwise than the record says."""
    from harness.training.programs.compile_cache import seen

    named = stretch.named
    trained, here = code_at(named.provenance.code_hash, stretch.first), code_of(named.config)
    if trained != here:
        yield Changed("code", trained[:SHORT], here[:SHORT])
    written, read = named.provenance.config_hash, stored_hash(named.run.config)
    if written != read:
        yield Changed("config", written[:SHORT], read[:SHORT])
    if then is not None:
        yield from environment.changes(then, seen(lane.devices))


def _notes(stretch: Stretch, then: Surroundings | None) -> Iterator[str]:
    yield from (f"{sentence[0].upper()}{sentence[1:]}." for sentence in stretch.skipped)
    if then is None:
        yield "Its record does not say on which devices and under which flags it was trained."


def _name(stretch: Stretch) -> str:
    record = stretch.named.provenance
    name = f"{record.scale}/{record.variant}/seed{record.seed}"
    return name if record.parent is None else f"{name}/{stretch.run.path.resolve().name}"
