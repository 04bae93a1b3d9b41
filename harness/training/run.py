"""One run from its directory to its end state: resume, train, branch."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import jax

from harness.config.schema.run import Config
from harness.core.atomic_files import Damaged, write_bytes
from harness.core.errors import UserError
from harness.parallel.processes.agreement import agreed, leads
from harness.records.paths import RunDir
from harness.records.run import environment, metrics
from harness.records.run.checkpoint_manifest import fault, good_steps, manifest_steps, read_manifest, remove
from harness.records.run.example_hash import write_examples
from harness.records.run.integrity import branch_stands
from harness.records.run.provenance import Provenance, read_provenance, write_provenance
from harness.records.run.status import State, read_status
from harness.records.run.timeline import Timeline
from harness.records.run.training_target import END, read_goal
from harness.training.loop import Desk, Diverged, Position, Preempted, train_course
from harness.training.output.checkpointer import Saver, restore, settle
from harness.training.output.image_samples import write_samples
from harness.training.output.profiler import Tracer
from harness.training.output.run_writer import Journal, Mute
from harness.training.parent_checkpoint import base_weights
from harness.training.programs.compile_cache import seen
from harness.training.programs.memory_check import Room
from harness.training.programs.run_programs import Lane
from harness.training.schedule import Course, branch_courses, main_course


@dataclass(frozen=True)
class Assignment:
    """A run directory that the launcher has prepared."""

    run: RunDir
    config: Config
    provenance: Provenance
    begun: float = field(default_factory=time.time)
    """UTC seconds at which the process took it on: what it costs to begin is seen from the timeline."""


def train_run(task: Assignment, lane: Lane, stop: threading.Event, room: Room | None = None) -> State:
    """Train a run and its branches from wherever they stand; returns the end state that it wrote.

    `room`: the memory that it shares with the other lanes of its process (None: nobody asks). Whatever
    goes wrong ends this run alone, with a sentence in its status and, for what nobody foresaw, a
    traceback in its log.
    """
    main = main_course(task.config)
    attempt = read_status(task.run).attempt + 1
    timeline = Timeline(task.run, attempt, len(lane.devices), task.begun) if leads() else None
    journal = _journal(task.run, main.last, 0, attempt, timeline)
    try:
        journal.beat("compile")
        lane.prepare()
        with room.hold(lane, lambda: _wait(journal, stop)) if room else nullcontext():
            _train_all(task, lane, stop, journal, timeline)
    except Diverged as outcome:
        journal.end(State.diverged, str(outcome))
    except Preempted:
        journal.end(State.preempted, "asked to leave; the same command continues from here")
    except UserError as error:
        journal.end(State.refused, str(error))
    except Exception as error:
        journal.log(traceback.format_exc())
        settle()  # another attempt in this process finds what this one left under way
        journal.end(*_explained(error, task.run))
    return journal.status.state


def _wait(journal: Journal, stop: threading.Event) -> None:
    """A sign of life of a lane that waits for memory."""
    journal.beat("memory")
    if stop.is_set() and jax.process_count() == 1:  # of several, none leaves without the others
        raise Preempted


def _train_all(
    task: Assignment, lane: Lane, stop: threading.Event, journal: Journal, timeline: Timeline | None
) -> None:
    """The run and its branches, up to its goal."""
    goal = agreed(lambda: read_goal(task.run))
    wanted = [course for course in branch_courses(task.config) if course.share <= goal]
    _train_main(task, lane, stop, journal, wanted[-1].first if goal < END else None)
    for course in wanted:
        journal.beat("branch")
        _train_branch(task, lane, stop, course, timeline)
    if goal < END:
        journal.end(State.waiting, f"at its look at {goal:.0%} of the tokens")
    else:
        journal.end(State.finished)


def _train_main(
    task: Assignment, lane: Lane, stop: threading.Event, journal: Journal, until: int | None
) -> None:
    """To the end of the run, or to the fork `until`, from where a look's branch leaves."""
    branches = branch_courses(task.config)
    forks = frozenset(course.first for course in branches)
    desk = _desk(task, task.run, journal, stop, forks)
    journal.turn("load")
    start = _resumed(task.run, lane, desk, branches)
    _note_surroundings(task.run, lane, start.step if start else 0)
    if start is None:
        base = task.provenance.facts.base
        start = Position(0, lane.initial(base_weights(base) if base else None), "", 0.0)
    tracer = Tracer(task.config.profile, journal, start.step)
    try:
        desk = dataclasses.replace(desk, tracer=tracer)
        end = train_course(lane, main_course(task.config), start, desk, forks, until)
    finally:
        tracer.close()
    if until is None:
        _conclude(desk, end)
        if lane.gallery is not None:
            journal.beat("sample")
            write_samples(task.run, lane, lane.gallery, end.state)
    else:
        desk.saver.wait()


def _train_branch(
    task: Assignment, lane: Lane, stop: threading.Event, course: Course, timeline: Timeline | None
) -> None:
    """A run of its own that starts from its parent's checkpoint, in the parent's lane."""
    run = task.run.branch(course.share)
    if agreed(lambda: branch_stands(run)):
        return
    if leads():
        _begin_branch(task, lane, course, run)
    attempt = read_status(run).attempt + 1
    journal = _journal(run, course.last, course.first, attempt, timeline, course.share)
    try:
        desk = _desk(task, run, journal, stop)
        start = _resumed(run, lane, desk) or _forked(task.run, lane, course.first)
        _note_surroundings(run, lane, start.step)
        _conclude(desk, train_course(lane, course, start, desk))
        journal.end(State.finished)
    except Diverged as outcome:
        journal.end(State.diverged, str(outcome))
    except BaseException:
        journal.end(State.preempted, "its parent's lane ended; continues with it")
        raise


def _begin_branch(task: Assignment, lane: Lane, course: Course, run: RunDir) -> None:
    """Its directory, as the launcher leaves that of a run."""
    parent = {"run": str(task.run.path.name), "step": course.first, "share": course.share}
    run.config.parent.mkdir(exist_ok=True)
    write_bytes(run.config, task.run.config.read_bytes())
    tokens = course.last * lane.tokens_per_step
    before = read_provenance(run)
    known = before.surroundings if before else []
    record = dataclasses.replace(task.provenance, tokens=tokens, parent=parent, surroundings=known)
    write_provenance(run, record)


def _journal(
    run: RunDir, steps: int, sealed: int, attempt: int, timeline: Timeline | None, share: float = 1.0
) -> Journal:
    """One process of a run writes it."""
    return (Journal if leads() else Mute)(run, steps, sealed, attempt, timeline, share)


def _note_surroundings(run: RunDir, lane: Lane, step: int) -> None:
    """What a replay needs beside the config, into run.json: that is the worker's while it has the run."""
    record = read_provenance(run)
    if record is not None and leads():
        known = environment.noted(record.surroundings, step, seen(lane.devices))
        if known != record.surroundings:
            write_provenance(run, dataclasses.replace(record, surroundings=known))


def _desk(
    task: Assignment,
    run: RunDir,
    journal: Journal,
    stop: threading.Event,
    forks: frozenset[int] = frozenset(),
) -> Desk:
    saver = Saver(run, task.config.checkpoint, forks)
    return Desk(journal, saver, task.provenance.identity, task.provenance.facts.data_fingerprint, stop)


def _resumed(run: RunDir, lane: Lane, desk: Desk, branches: Sequence[Course] = ()) -> Position | None:
    """Where the run goes on from its own checkpoints; None if it begins."""
    step = agreed(lambda: _cleared(run, desk, branches))
    if step is None:
        return None
    desk.journal.resume(step)
    return _restored(run, lane, step)


def _cleared(run: RunDir, desk: Desk, branches: Sequence[Course]) -> int | None:
    """Step of the newest good checkpoint that the curve reaches, and from which every fork that `branches`
    still need can be had; None if there is none.

    What is damaged or lies behind it is named in the log and removed: it is computed again.
    """
    whole, damage = metrics.intact_until(run)
    steps, faults = good_steps(run)
    latest = min(_forks_lost(run, branches, steps), default=whole)
    for text in [f"{part.path}: {part.reason}" for part in damage] + faults:
        desk.journal.log(f"damaged, computed again: {text}")
    usable = [step for step in steps if step <= min(whole, latest) and _ours(run, step, desk)]
    for step in manifest_steps(run):
        if not usable or step > usable[-1] or step not in steps:
            remove(run, step)
    metrics.drop_after(run, usable[-1] if usable else 0)
    return usable[-1] if usable else None


def _forked(run: RunDir, lane: Lane, step: int) -> Position:
    """Where a branch begins. Raises Damaged where the fork was damaged since the run passed it, which Orbax
    would read silently."""
    if why := agreed(lambda: fault(run, step)):
        raise Damaged(why)
    return _restored(run, lane, step)


def _restored(run: RunDir, lane: Lane, step: int) -> Position:
    manifest = read_manifest(run, step)
    if manifest is None:
        raise Damaged(f"{run.manifest(step)}: the checkpoint at step {step} is gone")
    state = restore(run, step, lane.abstract_state())
    return Position(step, state, manifest.example_hash, manifest.device_seconds, manifest.input_seconds)


def _ours(run: RunDir, step: int, desk: Desk) -> bool:
    manifest = read_manifest(run, step)
    ours = (desk.identity, desk.data_fingerprint)
    return manifest is not None and (manifest.identity, manifest.data_fingerprint) == ours


def _forks_lost(run: RunDir, branches: Sequence[Course], good: Sequence[int]) -> list[int]:
    """Steps without a good checkpoint at which a branch that is still to be trained leaves the run."""
    return [
        course.first
        for course in branches
        if course.first not in good and not branch_stands(run.branch(course.share))
    ]


def _conclude(desk: Desk, end: Position) -> None:
    """Raises Damaged where a part was damaged since it was written: joined without it, the curve would be
    short, and nothing would tell."""
    desk.saver.wait()
    if not leads():
        return
    whole, _ = metrics.intact_until(desk.journal.run)
    if whole < end.step:
        raise Damaged(f"{desk.journal.run.metrics}: the curve is whole up to step {whole} of {end.step}")
    metrics.compact(desk.journal.run)
    write_examples(desk.journal.run, end.step, end.example_hash)


def _explained(error: Exception, run: RunDir) -> tuple[State, str]:
    """End state and one sentence for an error that ended a lane."""
    text = str(error)
    if "No space left on device" in text:
        return State.failed, f"{run.path}: the disk is full; free some space and give the same command again"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return State.oom, f"out of memory: {text.splitlines()[0] if text else 'in Python'}"
    first = text.splitlines()[0] if text else ""
    return State.failed, f"{type(error).__name__}: {first}"
