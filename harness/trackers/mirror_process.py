"""Process that mirrors one sweep in one tracker: `python -m harness.trackers.mirror_process SWEEP TRACKER`.

The first line of its input holds the settings, as JSON. It sends what is new until its input ends, which is
when the process that started it is done or gone; then it makes a last pass and exits. Exit status 1:
`problem` in the record says what was not sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.config.schema.tracker import TrackerConfig
from harness.records.paths import SweepDir
from harness.records.run.run_lock import acquire
from harness.trackers.known_trackers import make_backend
from harness.trackers.sent_runs import SentRuns, read_sent_runs
from harness.trackers.sweep_mirror import Mirror
from harness.trackers.tracker_api import TrackerBackend

POLL_SECONDS, CPU_SHARE = 2.0, 0.01
"""Seconds between two passes, at least, and share of a core that passes may use while runs train."""
LAST_TRIES, RETRY_SECONDS = 3, 1.0
"""Passes after the end of the input until one has sent everything, and seconds between them."""
LOWEST_PRIORITY = 19


def main(sweep: SweepDir, tracker: str) -> int:
    """Mirror until the input ends. Return 0 if everything was sent, else 1."""
    order = json.loads(sys.stdin.readline() or "{}")
    settings = order.get("settings", {})
    if order.get("is_beside_training"):
        _step_back()
    while not acquire(sweep.trackers / f"{tracker}.lock"):  # the last process sends its rest
        time.sleep(RETRY_SECONDS)
    mirror = Mirror(
        sweep,
        partial(_make_backend, sweep, tracker, settings),
        read_sent_runs(sweep, tracker, settings),
        _final_curves(sweep),
    )
    while not _input_ended(0.0):
        start = time.process_time()
        mirror.send()
        if _input_ended(max(POLL_SECONDS, (time.process_time() - start) / CPU_SHARE)):
            break
    for attempt in range(LAST_TRIES):
        time.sleep(RETRY_SECONDS if attempt else 0.0)
        if mirror.send(is_last=True):
            mirror.close()
            return 0
    return 1


def _make_backend(sweep: SweepDir, tracker: str, settings: dict[str, Any]) -> TrackerBackend:
    schema = OmegaConf.structured(TrackerConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, {tracker: settings}))
    assert isinstance(config, TrackerConfig)
    return make_backend(tracker, sweep.trackers, sweep.path.name, config)


def _final_curves(sweep: SweepDir) -> Any:
    def curves(records: SentRuns) -> Any:
        from harness.trackers.verdict_curves import verdict_curves  # statistics and charts take a second

        return verdict_curves(sweep, records)

    return curves


def _step_back() -> None:
    """Leave the processors to whoever else wants them. This process leads a session of its own, which is what
    some kernels share processors between."""
    os.nice(LOWEST_PRIORITY)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(LOWEST_PRIORITY))


def _input_ended(seconds: float) -> bool:
    """Wait some seconds for the end of the input; return whether it has come."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    status = main(SweepDir(Path(sys.argv[1])), sys.argv[2])
    sys.stdout.flush()
    os._exit(status)  # threads of a tracker's package may wait for a server for ever
