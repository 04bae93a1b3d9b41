"""Trace of a few steady steps of a run by JAX's profiler, written once, to `<run>/profile/`. There is one
profiler per process, and it sees the whole process: steps of other runs are in the trace too."""

from __future__ import annotations

import threading

import jax

from harness.config.schema.run import Profile, ProfileConfig
from harness.core.errors import UserError
from harness.parallel.processes.agreement import is_primary
from harness.training.output.run_writer import RunWriter

PHASE = "trace"
"""Timeline phase while the profiler starts or writes. Traced steps count as training."""
_PROFILER_LOCK = threading.Lock()


def check_profile(config: ProfileConfig) -> None:
    """Raise UserError unless first <= last."""
    if config.last < config.first:
        raise UserError(
            f"profile.first={config.first}, profile.last={config.last}: steps of an attempt count from "
            "1, and profile.last must not be below profile.first."
        )


class StepProfiler:
    """Trace of steps `first` to `last` of an attempt; used by the run's own thread. Success and failure go to
    the log. A failed trace never ends a run."""

    def __init__(self, config: ProfileConfig, writer: RunWriter, start: int):
        self._writer, self._folder = writer, writer.run.profile
        has_trace = any(self._folder.rglob("*.trace.json.gz"))
        is_traced = is_primary() and config.name is Profile.steps and not has_trace
        self._first_step = start + config.first - 1 if is_traced else None
        self._last_step = start + config.last
        self._tracing = False

    def is_due(self, step: int) -> bool:
        """Return whether the trace starts before the update from `step` on, or ends there."""
        return step == (self._last_step if self._tracing else self._first_step)

    def toggle(self) -> None:
        """Start or stop the trace. No step may be pending on the devices."""
        (self._stop if self._tracing else self._start)()

    def close(self) -> None:
        """Stop the trace at the end of the run, and release the profiler for other runs."""
        if self._tracing:
            self._stop()
        elif self._first_step is not None:
            self._writer.log("no trace: the attempt ended before the first step to be traced")

    def _start(self) -> None:
        self._first_step = None
        if not _PROFILER_LOCK.acquire(blocking=False):
            reason = "another run of this process is being traced, and JAX traces one at a time"
            self._writer.log(f"no trace: {reason}")
            return
        self._writer.set_phase(PHASE)
        try:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # the Python tracer would slow the steps
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._tracing = True
        except Exception as error:
            _PROFILER_LOCK.release()
            self._writer.log(f"no trace: {error}")

    def _stop(self) -> None:
        self._tracing = False
        self._writer.set_phase(PHASE)
        try:
            jax.profiler.stop_trace()
        except Exception as error:
            self._writer.log(f"no trace: {error}")
            return
        finally:
            _PROFILER_LOCK.release()
        viewers = f"open it at ui.perfetto.dev, or with `xprof --logdir {self._folder}`"
        for file in self._folder.rglob("*.trace.json.gz"):
            self._writer.log(f"trace up to step {self._writer.status.step} in {file}: {viewers}")
