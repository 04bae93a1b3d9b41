"""How one course is trained: batches in, rows and checkpoints out."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace

import jax
import numpy as np

from harness.config.schema.run import Method
from harness.data import Batch, roll
from harness.parallel.processes.agreement import Leaving
from harness.records.run.checkpoint_manifest import Manifest
from harness.records.run.timeline import TRAIN
from harness.training.output.checkpointer import Saver
from harness.training.output.profiler import Tracer
from harness.training.output.run_writer import Journal
from harness.training.programs.run_programs import Lane
from harness.training.schedule import Course, decays, learning_rate
from harness.training.step import METRICS, TrainState


class Diverged(Exception):
    """The loss is no longer a number: an outcome, not a failure."""


class Preempted(Exception):
    """Asked to leave; the state is saved."""


@dataclass(frozen=True)
class Position:
    """Where a course stands after `step` updates."""

    step: int
    state: TrainState
    example_hash: str
    device_seconds: float
    input_seconds: float = 0.0
    """The part of `device_seconds` in which the lane waited for its input."""


@dataclass(frozen=True)
class Desk:
    """Where a course is written down, and how it hears that it should leave."""

    journal: Journal
    saver: Saver
    identity: str
    data_fingerprint: str
    stop: threading.Event
    tracer: Tracer | None = None

    def save(self, lane: Lane, here: Position) -> None:
        """Rows first, then the state; the manifest comes last, when Orbax is done."""
        self.journal.beat("save")
        self.journal.seal(here.step)
        manifest = Manifest(
            here.step, self.identity, self.data_fingerprint, here.example_hash, here.device_seconds, {},
            here.input_seconds,
        )  # fmt: skip
        self.saver.save(lane.copy(here.state), manifest)


def train_course(
    lane: Lane,
    course: Course,
    start: Position,
    desk: Desk,
    forks: frozenset[int] = frozenset(),
    until: int | None = None,
) -> Position:
    """Train from `start` to the end of the course, or to the fork `until`, saving also at `forks`.

    The metrics of a step are fetched after the next one is dispatched. Raises Diverged when a
    loss is not finite, Preempted when asked to leave (then the state is saved).
    """
    evaluate_at, save_at = boundaries(lane, course, forks)
    meter = Meter(lane, course, desk.journal, start)
    if start.step == 0 and lane.config.finetune.method is not Method.none:
        desk.journal.beat("evaluate")
        meter.evaluated(start, lane.evaluate(start.state))  # what the parent knew
        meter.resume()
    leaves = Leaving(desk.stop)
    here = start
    last = course.last if until is None else until
    for step in range(start.step, last):
        if desk.tracer and desk.tracer.due(step):
            here = meter.settled(here)
            desk.tracer.turn()
            meter.resume()
        batch, tokens_MBT1 = meter.read(step)
        rate = lane.config.optimizer.learning_rate * learning_rate(lane.config.schedule, course, step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):  # nothing while none traces
            state, metrics = lane.step(here.state, tokens_MBT1, rate)
        meter.dispatched(step + 1, rate, metrics)
        here = Position(step + 1, state, roll(here.example_hash, batch.ids_B), meter.device_seconds)
        leaving = leaves.after(here.step) and here.step < course.last
        if leaving or here.step in evaluate_at or here.step in save_at:
            here = meter.settled(here)
            if here.step in evaluate_at:
                desk.journal.beat("evaluate")
                meter.evaluated(here, lane.evaluate(state))
            if leaving or here.step in save_at:
                desk.save(lane, here)
            if leaving:
                desk.saver.wait()
                raise Preempted
            if here.step < last:  # what is left is to wait until the last state is saved
                meter.resume()
    return here


def boundaries(lane: Lane, course: Course, forks: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """The steps after which a course is evaluated, and those after which it is saved."""
    points, every = lane.config.evaluation.points, lane.config.checkpoint.every
    evaluate = {round(course.last * i / points) for i in range(1, points + 1)} if course.share == 1 else set()
    save = {step for step in range(course.first + 1, course.last) if step % every == 0}
    return frozenset(evaluate | {course.last}), frozenset(save | {course.last} | forks)


class Meter:
    """Turns what the device reports into rows, one step behind the dispatch."""

    def __init__(self, lane: Lane, course: Course, journal: Journal, start: Position):
        self._lane, self._course, self._journal = lane, course, journal
        self._width = len(lane.devices)
        self._pending: tuple[int, float, jax.Array, float] | None = None
        self.device_seconds, self.input_seconds = start.device_seconds, start.input_seconds
        journal.tell(input_share=_share(self.input_seconds, self.device_seconds))
        self.resume()

    def read(self, step: int) -> tuple[Batch, jax.Array]:
        """The batch of a step, and its tokens on the lane's devices.

        What the lane's thread spends on the two is input time, though the devices may still be busy with the
        step before: it is the most that an ideal reader would save.
        """
        begun = time.perf_counter()
        batch = self._lane.get_batch(step)
        tokens_MBT1 = self._lane.put(batch)
        self.input_seconds += (time.perf_counter() - begun) * self._width
        return batch, tokens_MBT1

    def dispatched(self, step: int, rate: float, metrics: jax.Array) -> None:
        previous, self._pending = self._pending, (step, rate, metrics, self.input_seconds)
        if previous:
            self._record(*previous)

    def settled(self, here: Position) -> Position:
        """Fetch what is still under way: afterwards every row up to `here` is written down."""
        if self._pending:
            self._record(*self._pending)
            self._pending = None
        return replace(here, device_seconds=self.device_seconds, input_seconds=self.input_seconds)

    def resume(self) -> None:
        """Evaluating and saving are not training time."""
        self._journal.turn(TRAIN)
        self._last = time.perf_counter()

    def evaluated(self, here: Position, domains: dict[str, tuple[float, float | None]]) -> None:
        decayed = here.step == self._course.last and decays(self._lane.config.schedule)
        for domain, (loss, bits) in domains.items():
            row = self._counts(here.step) | {"domain": domain, "loss": loss, "bits_per_byte": bits}
            self._journal.add("evals", row | {"decayed": decayed})

    def _record(self, step: int, rate: float, metrics: jax.Array, waited: float) -> None:
        # Only experts have the last two.
        told = dict(zip(METRICS, map(float, np.asarray(metrics)), strict=False))
        loss = told["loss"]
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        self.device_seconds += elapsed * self._width
        row = self._counts(step) | told | {"learning_rate": rate, "input_seconds": waited}
        self._journal.add("steps", row)
        self._journal.tell(input_share=_share(waited, self.device_seconds))
        speed = self._lane.tokens_per_step / max(elapsed, 1e-9)
        self._journal.beat("train", step=step, tokens=row["tokens"], loss=loss, tokens_per_second=speed)
        if not math.isfinite(loss):
            self._journal.seal(step)
            raise Diverged(f"the loss is {loss} at step {step}")

    def _counts(self, step: int) -> dict[str, float]:
        tokens = step * self._lane.tokens_per_step
        flops = tokens * self._lane.learner.flops_per_token
        return {"step": step, "tokens": tokens, "flops": flops, "device_seconds": self.device_seconds}


def _share(waited: float, seconds: float) -> float | None:
    return waited / seconds if seconds > 0 else None
