"""A trace of a few steady steps of a run by JAX's profiler, written once: `<run>/profile/`.

The profiler is one a process and sees all of it: the steps of other lanes beside it are in the trace too.
"""

from __future__ import annotations

import threading

import jax

from harness.config.schema.run import Profile, ProfileConfig
from harness.core.errors import UserError
from harness.parallel.processes.agreement import leads
from harness.training.output.run_writer import Journal

PHASE = "trace"
"""In the timeline: the profiler starts, or writes. Traced steps are training as any other."""
_ONE = threading.Lock()


def check_profile(config: ProfileConfig) -> None:
    """Raises UserError for steps that are none."""
    if not 1 <= config.first <= config.last:
        raise UserError(
            f"profile.first={config.first}, profile.last={config.last}: the steps of an attempt count from "
            "1, and the last is not before the first"
        )


class Tracer:
    """Traces steps `first` to `last` of an attempt; used by the lane's thread.

    Whatever becomes of the trace is said in the log, and no run ends of it.
    """

    def __init__(self, config: ProfileConfig, journal: Journal, start: int):
        self._journal, self._folder = journal, journal.run.profile
        wanted = leads() and config.name is Profile.steps and not any(self._folder.rglob("*.trace.json.gz"))
        self._begin = start + config.first - 1 if wanted else None
        self._end = start + config.last
        self._tracing = False

    def due(self, step: int) -> bool:
        """Whether the trace begins before the update from `step` on, or ends there."""
        return step == (self._end if self._tracing else self._begin)

    def turn(self) -> None:
        """Begin or end. The lane has nothing under way."""
        if self._tracing:
            self._finish()
        else:
            self._start()

    def close(self) -> None:
        """The lane is done: what was traced is kept, and others can have the profiler."""
        if self._tracing:
            self._finish()
        elif self._begin is not None:
            self._journal.log("no trace: the attempt ended before the first step to be traced")

    def _start(self) -> None:
        self._begin = None
        if not _ONE.acquire(blocking=False):
            self._journal.log("no trace: another lane of this process is traced, and it takes one at a time")
            return
        self._journal.turn(PHASE)
        try:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # which would slow what it measures
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._tracing = True
        except Exception as error:
            _ONE.release()
            self._journal.log(f"no trace: {error}")

    def _finish(self) -> None:
        self._tracing = False
        self._journal.turn(PHASE)
        try:
            jax.profiler.stop_trace()
        except Exception as error:
            self._journal.log(f"no trace: {error}")
            return
        finally:
            _ONE.release()
        how = f"open it at ui.perfetto.dev, or `xprof --logdir {self._folder}`"
        for file in self._folder.rglob("*.trace.json.gz"):
            self._journal.log(f"the steps up to {self._journal.status.step} are traced in {file}: {how}")
