"""A trace of a few steady steps of a run by JAX's profiler, written once: `<run>/profile/`.

The profiler is one a process and sees all of it: the steps of other lanes beside it are in the trace too.
"""

from __future__ import annotations

import threading

import jax

from harness.config.schema.run import Profile, ProfileConfig
from harness.core.errors import UserError
from harness.parallel.processes.agreement import is_primary
from harness.training.output.run_writer import RunWriter

PHASE = "trace"
"""In the timeline: the profiler starts, or writes. Traced steps are training as any other."""
_PROFILER_LOCK = threading.Lock()


def check_profile(config: ProfileConfig) -> None:
    """Raises UserError for steps that are none."""
    if not 1 <= config.first <= config.last:
        raise UserError(
            f"profile.first={config.first}, profile.last={config.last}: the steps of an attempt count from "
            "1, and the last is not before the first"
        )


class StepProfiler:
    """Traces steps `first` to `last` of an attempt; used by the lane's thread.

    Whatever becomes of the trace is said in the log, and no run ends of it.
    """

    def __init__(self, config: ProfileConfig, writer: RunWriter, start: int):
        self._writer, self._folder = writer, writer.run.profile
        is_traced = (
            is_primary() and config.name is Profile.steps and not any(self._folder.rglob("*.trace.json.gz"))
        )
        self._first_step = start + config.first - 1 if is_traced else None
        self._last_step = start + config.last
        self._tracing = False

    def is_due(self, step: int) -> bool:
        """Whether the trace begins before the update from `step` on, or ends there."""
        return step == (self._last_step if self._tracing else self._first_step)

    def toggle(self) -> None:
        """Begin or end. The lane has nothing under way."""
        if self._tracing:
            self._stop()
        else:
            self._start()

    def close(self) -> None:
        """The lane is done: what was traced is kept, and others can have the profiler."""
        if self._tracing:
            self._stop()
        elif self._first_step is not None:
            self._writer.log("no trace: the attempt ended before the first step to be traced")

    def _start(self) -> None:
        self._first_step = None
        if not _PROFILER_LOCK.acquire(blocking=False):
            self._writer.log("no trace: another lane of this process is traced, and it takes one at a time")
            return
        self._writer.set_phase(PHASE)
        try:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # which would slow what it measures
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
        how = f"open it at ui.perfetto.dev, or `xprof --logdir {self._folder}`"
        for file in self._folder.rglob("*.trace.json.gz"):
            self._writer.log(f"the steps up to {self._writer.status.step} are traced in {file}: {how}")
