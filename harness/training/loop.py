"""Training loop of one segment: batches in, metric rows and checkpoints out."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, cast

import jax

from harness.config.recipes.durations import evaluation_steps, save_steps
from harness.config.schema.finetune import FinetuneMethod
from harness.data import Batch, update_example_hash
from harness.parallel.processes.agreement import PreemptionSync, SaveClock
from harness.records.run.checkpoint_manifest import Manifest
from harness.records.run.stream_hash import StreamHash
from harness.records.run.timeline import TRAIN
from harness.training.output.checkpointer import Checkpointer
from harness.training.output.profiler import StepProfiler
from harness.training.output.run_writer import RunWriter
from harness.training.programs.evaluate import DomainResult
from harness.training.programs.run_programs import RunPrograms
from harness.training.schedule import Segment, ends_decayed
from harness.training.step import TrainState
from harness.training.step_inputs import step_inputs


class Diverged(Exception):
    """A loss that is not finite: an outcome of the run, not a failure."""


class Preempted(Exception):
    """A request to stop, raised after the state was saved."""


@dataclass(frozen=True)
class Progress:
    """State of a segment after `step` updates."""

    step: int
    state: TrainState
    example_hash: str
    device_seconds: float
    input_seconds: float = 0.0
    """Part of `device_seconds` spent waiting for input."""
    stream: StreamHash | None = None
    """Hash of the examples one by one; None in a run that an earlier version began."""


@dataclass(frozen=True)
class RunIO:
    """Outputs of a segment (metrics, checkpoints, profile) and its stop request."""

    writer: RunWriter
    checkpointer: Checkpointer
    identity: str
    data_fingerprint: str
    stop: threading.Event
    profiler: StepProfiler | None = None

    def save(self, progress: Progress) -> None:
        """Write the metric rows, then the state. The manifest follows when Orbax is done."""
        self.writer.heartbeat("save")
        self.writer.write_part(progress.step)
        manifest = Manifest(
            progress.step, self.identity, self.data_fingerprint, progress.example_hash,
            progress.device_seconds, {}, progress.input_seconds,
            progress.stream.to_json() if progress.stream else {},
        )  # fmt: skip
        self.checkpointer.save(progress.state, manifest)


def train_segment(
    programs: RunPrograms,
    segment: Segment,
    start: Progress,
    run_io: RunIO,
    forks: frozenset[int] = frozenset(),
    until: int | None = None,
) -> Progress:
    """Train from `start` to the end of the segment, or to the fork `until`. Save at `forks` too. The metrics
    of a step are fetched after the next step is dispatched. Raises Diverged if a loss is not finite, and
    Preempted on a stop request (the state is then saved)."""
    evaluate_at, save_at = event_steps(programs, segment, forks)
    buffer, config = MetricsBuffer(programs, segment, run_io.writer, start), programs.config
    if start.step == 0 and config.finetune.method is not FinetuneMethod.none:
        run_io.writer.heartbeat("evaluate")
        buffer.add_evaluation(start, programs.evaluate(start.state))  # the parent's loss
        buffer.restart_clock()
    preemption = PreemptionSync(run_io.stop)
    save_clock = SaveClock(config.checkpoint.every_minutes)
    progress = start
    last = segment.last if until is None else until
    for step in range(start.step, last):
        if run_io.profiler and run_io.profiler.is_due(step):
            progress = buffer.flush(progress)
            run_io.profiler.toggle()
            buffer.restart_clock()
        batch, tokens_MBT1 = buffer.read_batch(step)
        inputs = step_inputs(config, segment, step, clock=programs.has_clock)
        rate = inputs.learning_rate
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):  # no cost unless a trace runs
            state, metrics = programs.step(progress.state, tokens_MBT1, inputs)
        buffer.add_step(step + 1, rate, metrics)
        example_hash = update_example_hash(progress.example_hash, batch.ids_B)
        stream = progress.stream.update(batch.ids_B.astype("<u8").tobytes()) if progress.stream else None
        progress = Progress(step + 1, state, example_hash, buffer.device_seconds, stream=stream)
        preempted = preemption.should_stop_after(progress.step) and progress.step < segment.last
        saves = preempted or save_clock.should_save_after(progress.step) or progress.step in save_at
        if saves or progress.step in evaluate_at:
            progress = buffer.flush(progress)
            if progress.step in evaluate_at:
                run_io.writer.heartbeat("evaluate")
                buffer.add_evaluation(progress, programs.evaluate(state))
            if saves:
                run_io.save(progress)
            if preempted:
                run_io.checkpointer.wait()
                raise Preempted
            if progress.step < last:  # after the last step only the save is left
                buffer.restart_clock()
    return progress


def event_steps(
    programs: RunPrograms, segment: Segment, forks: frozenset[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Return the steps after which a segment is evaluated, and those after which it is saved. A branch is
    evaluated at its end alone."""
    config = programs.config
    evaluate = evaluation_steps(config) if segment.share == 1 else []
    save = {step for step in save_steps(config) if segment.first < step < segment.last}
    return frozenset({*evaluate, segment.last}), frozenset(save | {segment.last} | forks)


class MetricsBuffer:
    """Metric rows from device results, one step behind the dispatch."""

    def __init__(self, programs: RunPrograms, segment: Segment, writer: RunWriter, start: Progress):
        self._programs, self._segment, self._writer = programs, segment, writer
        self._num_devices = len(programs.devices)
        self._pending: tuple[int, float, jax.Array, float] | None = None
        self.device_seconds, self.input_seconds = start.device_seconds, start.input_seconds
        writer.update_status(input_share=_input_share(self.input_seconds, self.device_seconds))
        self.restart_clock()

    def read_batch(self, step: int) -> tuple[Batch, jax.Array]:
        """Return the batch of a step, and its tokens on the devices. The host time of both counts as input
        time, unless the devices are still busy with the previous step at its end: nothing waited then. It is
        an upper bound on what a perfect reader would save."""
        start = time.perf_counter()
        batch = self._programs.get_batch(step)
        tokens_MBT1 = self._programs.put_batch(batch)
        if self._pending is None or cast(Any, self._pending[2]).is_ready():
            self.input_seconds += (time.perf_counter() - start) * self._num_devices
        return batch, tokens_MBT1

    def add_step(self, step: int, rate: float, metrics: jax.Array) -> None:
        """Queue the metrics of a dispatched step, and write the row of the step before."""
        previous, self._pending = self._pending, (step, rate, metrics, self.input_seconds)
        if previous:
            self._write_row(*previous)

    def flush(self, progress: Progress) -> Progress:
        """Fetch the pending metrics, so that every row up to `progress` is written."""
        if self._pending:
            self._write_row(*self._pending)
            self._pending = None
        return replace(progress, device_seconds=self.device_seconds, input_seconds=self.input_seconds)

    def restart_clock(self) -> None:
        """Restart the step clock. Evaluating and saving do not count as training time."""
        self._writer.set_phase(TRAIN)
        self._last = time.perf_counter()

    def add_evaluation(self, progress: Progress, domains: dict[str, DomainResult]) -> None:
        """Add one row per held-out domain."""
        decayed = progress.step == self._segment.last and ends_decayed(self._programs.config.schedule)
        for domain, result in domains.items():
            row = self._counters(progress.step) | {"domain": domain, "decayed": decayed}
            row |= {"loss": result.loss, "bits_per_byte": result.bits_per_byte}
            self._writer.add("evals", row | result.metrics)

    def _write_row(self, step: int, rate: float, metrics: jax.Array, input_seconds: float) -> None:
        values = self._programs.step_values(metrics)
        loss = values["loss"]
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        self.device_seconds += elapsed * self._num_devices
        row = self._counters(step) | values | {"learning_rate": rate, "input_seconds": input_seconds}
        self._writer.add("steps", row)
        self._writer.update_status(input_share=_input_share(input_seconds, self.device_seconds))
        speed = self._programs.tokens_per_step / max(elapsed, 1e-9)
        self._writer.heartbeat("train", step=step, tokens=row["tokens"], loss=loss, tokens_per_second=speed)
        if not math.isfinite(loss):
            self._writer.write_part(step)
            raise Diverged(f"the loss is {loss} at step {step}")

    def _counters(self, step: int) -> dict[str, float]:
        tokens = step * self._programs.tokens_per_step
        flops = tokens * self._programs.trainable_model.flops_per_token
        return {"step": step, "tokens": tokens, "flops": flops, "device_seconds": self.device_seconds}


def _input_share(input_seconds: float, seconds: float) -> float | None:
    return input_seconds / seconds if seconds > 0 else None
