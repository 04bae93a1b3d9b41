"""Replay of some steps of a run, from a checkpoint or its start, compared bit by bit with its records."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compare.checkpoints.replay_check import (
    EvalRow,
    ReplayResult,
    StateCheck,
    StepRow,
    check_evaluations,
    check_state,
    find_mismatches,
    largest_difference,
)
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.jax_variables import drop_jax_options
from harness.core.jax_setup.malloc_options import keep_freed_memory
from harness.inspection.replay.conditions import changed_conditions, unrecorded_conditions
from harness.inspection.replay.step_range import StepRange, find_step_range
from harness.records.run import environment
from harness.records.run.checkpoint_manifest import read_manifest
from harness.records.run.environment import Environment
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import package_versions
from harness.records.sweep.trusted_modules import check_trusted

if TYPE_CHECKING:
    from harness.training.programs.run_programs import RunPrograms
    from harness.training.schedule import Segment
    from harness.training.step import TrainState


def verify(
    where: Path | str, steps: int | None = None, *, trust: bool = False, cached: bool = False
) -> ReplayResult:
    """Replay RUN@STEP with its evaluations to the next checkpoint, or over `steps`; compare bit by bit.

    RUN starts at the last possible step before a checkpoint. Nothing is written. Programs are compiled afresh
    unless `cached`. Raises UserError if there is nothing to replay, if data or devices changed, or without
    `trust` for unknown modules.
    """
    step_range = find_step_range(where, steps)
    run_ref = step_range.run_ref
    check_trusted(run_ref, trust=trust)
    recorded = environment.environment_at(run_ref.provenance.surroundings, step_range.first)
    _prepare_process(run_ref.config, recorded)
    programs = _make_programs(step_range, cached=cached)
    replay = _replay(step_range, programs)
    rows = replay.rows
    differing = find_mismatches(_recorded_rows(step_range, "steps"), rows)
    return ReplayResult(
        name=_run_name(step_range),
        first=step_range.first,
        last=step_range.last,
        equal=len(rows) - len({mismatch.step for mismatch in differing}),
        columns=tuple(column for column in rows[0] if column != "step"),
        parting=differing[0] if differing else None,
        largest=largest_difference(differing, "loss"),
        evaluations=check_evaluations(_recorded_rows(step_range, "evals"), replay.evaluations),
        states=tuple(replay.states),
        changes=tuple(changed_conditions(step_range, programs)),
        unrecorded_conditions=unrecorded_conditions(step_range),
        notes=tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in step_range.skipped),
    )


def _prepare_process(config: Config, recorded: Environment | None) -> None:
    """Set the recorded device count and, with the same jaxlib, XLA flags; import users' modules.

    One process with all devices replays a multi-process run, with the same order of reduction.
    """
    fresh = "jax" not in sys.modules
    if fresh:
        drop_jax_options()
    if fresh and config.cluster.platform == "cpu":
        devices = recorded.process_devices if recorded and not recorded.collectives else config.mesh.devices
        env = cpu_env(devices)
        if recorded and recorded.versions.get("jaxlib") == package_versions()["jaxlib"]:
            env["XLA_FLAGS"] = recorded.flags
        os.environ.update(env)
        keep_freed_memory()
    import jax

    from harness.models.registry import import_modules
    from harness.parallel.processes.jax_distributed import initialize_single

    # Programs have their own cache; those from JAX's cache cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if fresh and recorded and recorded.collectives:
        initialize_single(config.mesh.devices)
    import_modules(config)


def _make_programs(step_range: StepRange, *, cached: bool) -> RunPrograms:
    """Build the programs of the run. Raises UserError for other data or few devices."""
    import jax

    from harness.data import describe_data, heldout_rows, open_data
    from harness.training.parent_checkpoint import rebuild_checkpoint_model
    from harness.training.programs.run_programs import make_run_programs

    run_ref, path = step_range.run_ref, step_range.run.path
    config, facts = run_ref.config, run_ref.provenance.facts
    if describe_data(config.data, config.evaluation.tokens).fingerprint != facts.data_fingerprint:
        raise UserError(f"{path}: its training data has changed. Restore those files to replay it.")
    devices, device_count = jax.devices(), config.mesh.devices
    if len(devices) < device_count:
        available = f"{len(devices)} are available here"
        raise UserError(f"{path} was trained on {device_count} devices, but {available}. Replay it there.")
    model, corpus = rebuild_checkpoint_model(run_ref), open_data(config.data)
    kernels = [choice.name for choice in model.spec.kernels if choice.fused]
    if kernels and devices[0].platform == "cpu":
        raise UserError(f"{path} was trained with {kernels[0]}, which a CPU lacks. Replay it on such a chip.")
    sampler = corpus.sampler(config.scale.batch, config.data_seed)
    heldout = heldout_rows(config, corpus) if step_range.evaluated_steps else {}
    return make_run_programs(config, model, devices[:device_count], sampler.batch, heldout, cached=cached)


@dataclass
class _Replay:
    """Rows of the replayed steps and evaluations, and the comparison with each checkpoint in the range."""

    rows: list[StepRow] = field(default_factory=list)
    evaluations: list[EvalRow] = field(default_factory=list)
    states: list[StateCheck] = field(default_factory=list)


def _replay(step_range: StepRange, programs: RunPrograms) -> _Replay:
    """Train the steps of the range again, and evaluate where the run did."""
    from harness.data import update_example_hash
    from harness.training.step_inputs import step_inputs

    segment, config = _segment(step_range), step_range.run_ref.config
    state, example_hash = _initial_state(step_range, programs)
    replay = _Replay()
    replay.evaluations += _evaluate(step_range, programs, segment, step_range.first, state)
    for step in range(step_range.first, step_range.last):
        batch = programs.get_batch(step)
        inputs = step_inputs(config, segment, step, clock=programs.has_clock)
        state, metrics = programs.step(state, programs.put_batch(batch), inputs)
        example_hash = update_example_hash(example_hash, batch.ids_B)
        row = {"step": step + 1} | programs.step_values(metrics)
        row["learning_rate"] = inputs.learning_rate
        replay.rows.append(row | _counters(programs, step + 1))
        replay.evaluations += _evaluate(step_range, programs, segment, step + 1, state)
        if step + 1 in step_range.checkpoint_steps:
            replay.states.append(_check_checkpoint(step_range, programs, step + 1, state, example_hash))
    return replay


def _evaluate(
    step_range: StepRange, programs: RunPrograms, segment: Segment, step: int, state: TrainState
) -> list[EvalRow]:
    """Return a row per held-out domain if the run recorded an evaluation at this step, otherwise none."""
    from harness.training.schedule import ends_decayed

    if step not in step_range.evaluated_steps:
        return []
    decayed = step == segment.last and ends_decayed(programs.config.schedule)
    common = {"step": step} | _counters(programs, step)
    return [
        common
        | {"domain": domain, "loss": result.loss, "bits_per_byte": result.bits_per_byte, "decayed": decayed}
        | result.metrics
        for domain, result in programs.evaluate(state).items()
    ]


def _counters(programs: RunPrograms, step: int) -> dict[str, float]:
    """Return tokens and FLOPs up to a step, over which a comparison plots losses."""
    tokens = step * programs.tokens_per_step
    return {"tokens": tokens, "flops": tokens * programs.trainable_model.flops_per_token}


def _recorded_rows(step_range: StepRange, kind: str) -> list[dict[str, Any]]:
    """Return the rows on disk of the steps, or of the evaluations, that are replayed."""
    first = step_range.first + (kind == "steps")
    curve = read_curve(step_range.run, kind)
    return curve.filter((curve["step"] >= first) & (curve["step"] <= step_range.last)).to_dicts()


def _segment(step_range: StepRange) -> Segment:
    """Return the schedule segment of the run or of the branch."""
    from harness.training.schedule import branch_segments, main_segment

    run_ref = step_range.run_ref
    if (parent := run_ref.provenance.parent) is None:
        return main_segment(run_ref.config)
    return next(segment for segment in branch_segments(run_ref.config) if segment.share == parent["share"])


def _initial_state(step_range: StepRange, programs: RunPrograms) -> tuple[TrainState, str]:
    """Return the state before the first step, and the hash of the examples up to it."""
    from harness.training.output.checkpointer import restore
    from harness.training.parent_weights import load_parent_weights

    if step_range.start is None:
        base = step_range.run_ref.provenance.facts.base
        return programs.init_state(load_parent_weights(base, programs) if base else None), ""
    state = restore(step_range.start.run, step_range.first, programs.abstract_state())
    return state, step_range.start.manifest.example_hash


def _check_checkpoint(
    step_range: StepRange, programs: RunPrograms, step: int, state: TrainState, example_hash: str
) -> StateCheck:
    from harness.training.output.checkpointer import restore

    manifest = read_manifest(step_range.run, step)
    saved = _arrays_by_path(restore(step_range.run, step, programs.abstract_state()))
    same_examples = manifest is not None and manifest.example_hash == example_hash
    return check_state(step, saved, _arrays_by_path(state), same_examples=same_examples)


def _arrays_by_path(state: TrainState) -> dict[str, np.ndarray]:
    """Return every leaf of the state by path, on the host."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _run_name(step_range: StepRange) -> str:
    record = step_range.run_ref.provenance
    name = f"{record.scale}/{record.variant}/seed{record.seed}"
    return name if record.parent is None else f"{name}/{step_range.run.path.resolve().name}"
