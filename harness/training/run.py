"""Training of one run, from its directory to its end state: resume, train, branches."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import jax

from harness.core.atomic_files import CorruptFile, write_bytes
from harness.core.cache.cache_entries import take_notes
from harness.core.errors import UserError
from harness.core.number_format import format_bytes
from harness.core.progress.report import opaque, reports_to
from harness.estimate.layouts import config_layout
from harness.estimate.model_size import shape_from_facts
from harness.estimate.ways_to_fit import ways_text
from harness.models.families.abilities import DrawsImages
from harness.parallel.processes.agreement import broadcast_from_primary, is_primary
from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest, environment, metrics
from harness.records.run.example_hash import write_examples
from harness.records.run.integrity import branch_is_complete
from harness.records.run.provenance import read_provenance, write_provenance
from harness.records.run.status import State, Status, read_status
from harness.records.run.stream_hash import StreamHash, parse_stream
from harness.records.run.timeline import Timeline
from harness.records.run.training_target import END, read_target
from harness.training.loop import Diverged, Preempted, Progress, RunIO, train_segment
from harness.training.output.checkpointer import Checkpointer, RestoreError, restore, wait_all
from harness.training.output.image_samples import write_samples
from harness.training.output.profiler import StepProfiler
from harness.training.output.run_writer import NullWriter, RunWriter
from harness.training.parent_weights import load_parent_weights
from harness.training.prepared_run import PreparedRun
from harness.training.programs.memory_check import MemoryBudget, NoRoom
from harness.training.programs.run_programs import RunPrograms
from harness.training.programs.training_environment import current_environment
from harness.training.schedule import Segment, branch_segments, main_segment

MAX_MESSAGE = 400
"""Maximum letters of an error in the status; the log has all of it."""


def train_run(
    task: PreparedRun, programs: RunPrograms, stop: Event, budget: MemoryBudget | None = None
) -> State:
    """Train a run and its branches from their newest checkpoints. Return the end state, as written to disk.
    `budget`: memory that the runs of this process share; None: no memory check. An error ends this run alone:
    its status gets one sentence, and an unexpected error leaves its traceback in the log."""
    main = main_segment(task.config)
    previous = read_status(task.run)
    attempt = previous.attempt + 1
    timeline = Timeline(task.run, attempt, len(programs.devices), task.started_at) if is_primary() else None
    writer_class = RunWriter if is_primary() else NullWriter
    writer = writer_class(task.run, main.last, 0, attempt, timeline)
    programs = dataclasses.replace(programs, note=writer.note)
    with reports_to(writer.report):
        return _train_to_end_state(task, programs, stop, budget, writer, previous)


def _train_to_end_state(
    task: PreparedRun,
    programs: RunPrograms,
    stop: Event,
    budget: MemoryBudget | None,
    writer: RunWriter,
    previous: Status,
) -> State:
    """Compile and train, and write the end state. `previous`: status of the last attempt."""
    try:
        writer.heartbeat("compile")
        # Process 0 of a group may have written the status of this attempt before another reads it.
        if is_primary() and previous.attempt and previous.died_before_a_step:
            writer.note("the last attempt died before its first step; its programs are compiled again")
            programs.remove_stored()
        programs.prepare()
        for text in take_notes():
            writer.note(text)
        waiting = functools.partial(_wait_for_memory, writer, stop)
        with budget.reserve(programs, waiting) if budget else nullcontext() as need:
            if need and not need.copy:
                task = dataclasses.replace(task, saves_in_background=False)
                size = format_bytes(need.state)
                writer.note(
                    f"saves wait for the disk: there is no room for a copy of the state, {size} a device"
                )
            _train_all(task, programs, stop, writer)
    except Diverged as outcome:
        writer.end(State.diverged, str(outcome))
    except Preempted:
        writer.end(State.preempted, "stopped on request; the same command continues from here")
    except NoRoom as shortage:
        writer.end(State.refused, f"{shortage} By the estimate of a plan, {_ways_to_fit(task, shortage)}")
    except UserError as error:
        writer.end(State.refused, str(error))
    except Exception as error:
        writer.log(traceback.format_exc())
        wait_all()  # the next attempt in this process must not find an unfinished save
        writer.end(*_end_state(error, task.run))
    return writer.status.state


def _ways_to_fit(task: PreparedRun, shortage: NoRoom) -> str:
    """Return how far each change of the layout would get."""
    model = shape_from_facts(task.config, task.provenance.facts)
    return ways_text(model, config_layout(task.config), shortage.available, shortage.devices)


def _wait_for_memory(writer: RunWriter, stop: Event) -> None:
    """Update the heartbeat of a run that waits for memory. Raises Preempted on a stop request."""
    writer.heartbeat("memory")
    if stop.is_set() and jax.process_count() == 1:  # processes of one run only stop together
        raise Preempted


def _train_all(task: PreparedRun, programs: RunPrograms, stop: Event, writer: RunWriter) -> None:
    """Train the run and its branches up to the training target."""
    target = broadcast_from_primary(lambda: read_target(task.run))
    branches = [branch for branch in branch_segments(task.config) if branch.share <= target]
    _train_main(task, programs, stop, writer, branches[-1].first if target < END else None)
    for segment in branches:
        writer.heartbeat("branch")
        _train_branch(task, programs, stop, segment, writer)
    if target < END:
        writer.end(State.waiting, f"at its interim look at {target:.0%} of the tokens")
    else:
        writer.end(State.finished)


def _train_main(
    task: PreparedRun, programs: RunPrograms, stop: Event, writer: RunWriter, until: int | None
) -> None:
    """Train to the end of the run, or to the fork `until`, where the branch of an interim look starts."""
    branches = branch_segments(task.config)
    forks = frozenset(segment.first for segment in branches)
    run_io = _make_run_io(task, task.run, writer, stop, forks)
    writer.set_phase("load")
    start = _resume(task.run, programs, run_io, branches)
    _record_environment(task.run, programs, start.step if start else 0)
    if start is None:
        parent = task.provenance.facts.base
        with opaque("reads the parent's weights") if parent else nullcontext():
            weights = load_parent_weights(parent, programs) if parent else None
        state = programs.init_state(weights)
        stream = StreamHash.of_run(main_segment(task.config).last * task.config.scale.batch)
        start = Progress(0, state, "", 0.0, stream=stream)
    profiler = StepProfiler(task.config.profile, writer, start.step)
    try:
        run_io = dataclasses.replace(run_io, profiler=profiler)
        end = train_segment(programs, main_segment(task.config), start, run_io, forks, until)
    finally:
        profiler.close()
    if until is None:
        _complete_metrics(run_io, end)
        if programs.features is not None and isinstance(programs.model, DrawsImages):
            writer.heartbeat("sample")
            write_samples(task.run, programs, programs.features, end.state)
    else:
        run_io.checkpointer.wait()


def _train_branch(
    task: PreparedRun, programs: RunPrograms, stop: Event, segment: Segment, parent: RunWriter
) -> None:
    """Train a branch, which starts from a checkpoint of its parent, on its parent's devices."""
    run = task.run.branch(segment.share)
    if broadcast_from_primary(lambda: branch_is_complete(run)):
        return
    if is_primary():
        _prepare_branch_dir(task, programs, segment, run)
    attempt = read_status(run).attempt + 1
    writer_class = RunWriter if is_primary() else NullWriter
    writer = writer_class(run, segment.last, segment.first, attempt, parent.timeline, segment.share, parent)
    try:
        run_io = _make_run_io(task, run, writer, stop)
        start = _resume(run, programs, run_io) or _restore_fork(task.run, programs, segment.first)
        _record_environment(run, programs, start.step)
        _complete_metrics(run_io, train_segment(programs, segment, start, run_io))
        writer.end(State.finished)
    except Diverged as outcome:
        writer.end(State.diverged, str(outcome))
    except BaseException:
        writer.end(State.preempted, "its parent run stopped; the branch continues when the parent does")
        raise


def _prepare_branch_dir(task: PreparedRun, programs: RunPrograms, segment: Segment, run: RunDir) -> None:
    """Write config and provenance of a branch, as the launcher does for a run."""
    parent = {"run": str(task.run.path.name), "step": segment.first, "share": segment.share}
    run.config.parent.mkdir(exist_ok=True)
    write_bytes(run.config, task.run.config.read_bytes())
    tokens = segment.last * programs.tokens_per_step
    existing = read_provenance(run)
    environments = existing.surroundings if existing else []
    record = dataclasses.replace(task.provenance, tokens=tokens, parent=parent, surroundings=environments)
    write_provenance(run, record)


def _record_environment(run: RunDir, programs: RunPrograms, step: int) -> None:
    """Append the environment that a replay needs to run.json, which the worker owns during the run."""
    record = read_provenance(run)
    if record is not None and is_primary():
        current = current_environment(programs.devices)
        environments = environment.append_entry(record.surroundings, step, current)
        if environments != record.surroundings:
            write_provenance(run, dataclasses.replace(record, surroundings=environments))


def _make_run_io(
    task: PreparedRun, run: RunDir, writer: RunWriter, stop: Event, forks: frozenset[int] = frozenset()
) -> RunIO:
    checkpointer = Checkpointer(run, task.config.checkpoint, forks, task.saves_in_background)
    identity, fingerprint = task.provenance.identity, task.provenance.facts.data_fingerprint
    return RunIO(writer, checkpointer, identity, fingerprint, stop)


def _resume(
    run: RunDir, programs: RunPrograms, run_io: RunIO, branches: Sequence[Segment] = ()
) -> Progress | None:
    """Restore the run from its newest usable checkpoint; None if it has none. A checkpoint that cannot be
    restored is set aside, and the run continues from an earlier one or starts over."""
    skipped = False
    while (step := broadcast_from_primary(lambda: _latest_usable_step(run, run_io, branches))) is not None:
        progress, problem = _try_restore(run, programs, step)
        if broadcast_from_primary(lambda problem=problem: problem) is None:
            if progress is None:  # this process alone failed
                raise CorruptFile(problem)
            if skipped:
                run_io.writer.note(f"continued from step {step}: later checkpoints cannot be restored")
            run_io.writer.resume(step)
            return progress
        skipped = True
        if is_primary():
            run_io.writer.log(f"{problem} It is set aside in {_set_aside(run, step)}.")
    if skipped:
        run_io.writer.note("started over: none of its checkpoints can be restored; its log says why")
    return None


def _try_restore(run: RunDir, programs: RunPrograms, step: int) -> tuple[Progress | None, str | None]:
    """Return the state at a step, or None and why it cannot be restored."""
    try:
        with opaque(f"restores step {step}"):
            return _restore(run, programs, step), None
    except RestoreError as error:
        return None, str(error)


def _set_aside(run: RunDir, step: int) -> Path:
    """Move a checkpoint out of the way, where other library versions may restore it, with its run.json."""
    folder = next(folder for folder in run.superseded() if not folder.exists())
    checkpoint_manifest.move_checkpoint(run, step, RunDir(folder))
    shutil.copyfile(run.run, RunDir(folder).run)
    return folder


def _latest_usable_step(run: RunDir, run_io: RunIO, branches: Sequence[Segment]) -> int | None:
    """Return the step of the newest usable checkpoint; None if there is none.

    A checkpoint is usable if it is valid and of this run, if the metrics on disk reach it, and if it is not
    past the fork of an incomplete branch whose own checkpoint is missing. Later and damaged checkpoints and
    metrics are removed, to be computed again; damage is logged.
    """
    complete_step, damage = metrics.complete_until(run)
    limit = min([complete_step, *_lost_forks(run, branches)])
    usable, faults, unusable = None, [], []
    for step in reversed(checkpoint_manifest.manifest_steps(run)):
        # Only the checkpoint that is about to be restored is read to the last byte.
        is_next = usable is None and step <= limit and _belongs_to_run(run, step, run_io)
        reason = checkpoint_manifest.corruption_reason(run, step, trust_memory=not is_next)
        faults += [reason] if reason else []
        usable = step if is_next and not reason else usable
        unusable += [step] if reason or usable is None else []
    for text in damage + faults[::-1]:
        run_io.writer.log(f"damaged, computed again: {text}")
    for step in unusable:
        checkpoint_manifest.remove_checkpoint(run, step)
    metrics.truncate_after(run, usable or 0)
    return usable


def _lost_forks(run: RunDir, branches: Sequence[Segment]) -> list[int]:
    """Return the steps where incomplete branches start whose checkpoints are missing or damaged."""
    steps, _ = checkpoint_manifest.valid_steps(run, trust_memory=True) if branches else ([], [])
    forks = [(b.first, run.branch(b.share)) for b in branches if b.first not in steps]
    return [step for step, branch in forks if not branch_is_complete(branch)]


def _restore_fork(run: RunDir, programs: RunPrograms, step: int) -> Progress:
    """Restore the checkpoint where a branch starts. Raises CorruptFile if it was damaged meanwhile, or if it
    cannot be restored; the next attempt then computes it again."""
    if reason := broadcast_from_primary(lambda: checkpoint_manifest.corruption_reason(run, step)):
        raise CorruptFile(reason)  # Orbax would read damaged files without an error
    progress, problem = _try_restore(run, programs, step)
    if progress is None:
        aside = f" It is set aside in {_set_aside(run, step)}." if is_primary() else ""
        raise CorruptFile(f"{problem}{aside}")
    return progress


def _restore(run: RunDir, programs: RunPrograms, step: int) -> Progress:
    manifest = checkpoint_manifest.read_manifest(run, step)
    if manifest is None:
        raise CorruptFile(f"{run.manifest(step)}: the checkpoint at step {step} is missing")
    state = restore(run, step, programs.abstract_state())
    return Progress(
        step, state, manifest.example_hash, manifest.device_seconds, manifest.input_seconds,
        parse_stream(manifest.stream),
    )  # fmt: skip


def _belongs_to_run(run: RunDir, step: int, run_io: RunIO) -> bool:
    manifest = checkpoint_manifest.read_manifest(run, step)
    expected = (run_io.identity, run_io.data_fingerprint)
    return manifest is not None and (manifest.identity, manifest.data_fingerprint) == expected


def _complete_metrics(run_io: RunIO, end: Progress) -> None:
    """Merge the metrics parts of a finished segment, and write its example hash. Raises CorruptFile if a part
    was damaged after it was written: the merged curve would be short unnoticed."""
    run_io.checkpointer.wait()
    if not is_primary():
        return
    run = run_io.writer.run
    complete_step, _ = metrics.complete_until(run)
    if complete_step < end.step:
        raise CorruptFile(f"{run.metrics}: the curve is complete up to step {complete_step} of {end.step}")
    metrics.merge_parts(run)
    write_examples(run, end.step, end.example_hash, end.stream)


def _end_state(error: Exception, run: RunDir) -> tuple[State, str]:
    """Return the end state, and one sentence, for an error that ended a run."""
    text = str(error)
    first_line = text.splitlines()[0][:MAX_MESSAGE] if text else ""
    if "No space left on device" in text:
        message = f"{run.path}: the disk is full. Free some space, then give the same command again."
        return State.failed, message
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return State.oom, f"out of memory: {first_line if text else 'in Python'}"
    return State.failed, f"{type(error).__name__}: {first_line}"
