"""A worker whose runs have a long phase before they train, as `SLOW_PHASES` says by seed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from harness.config.worker_options import from_env
from harness.core.progress.report import opaque, report, reports_to
from harness.core.progress.waiting import hold_lock
from harness.records.paths import RunDir
from harness.training.output.run_writer import RunWriter
from tests.launcher import fake_worker

SECONDS = 8.0


def main(argv: list[str], env: dict[str, str]) -> int:
    os.environ.update(env)
    run = RunDir(Path(argv[0]))
    phase = json.loads(os.environ["SLOW_PHASES"])[run.path.name]
    writer = RunWriter(run, 20, 0, 1)
    writer.heartbeat("compile")
    with reports_to(writer.report, from_env(os.environ).opaque_seconds):
        _work(phase)
    return fake_worker.main(argv, env)


def _work(phase: str) -> None:
    if phase == "in pieces":
        for piece in range(50):
            time.sleep(SECONDS / 50)
            report("tokenising", piece, 50)
    elif phase == "opaque":
        with opaque("compiles"):
            time.sleep(SECONDS)
    elif phase == "waits":
        with hold_lock(Path(os.environ["SLOW_LOCK"]), "waits", "no way out"):
            pass
    elif phase == "hangs in pieces":
        report("tokenising")
        time.sleep(600)
    elif phase == "hangs opaque":
        with opaque("compiles"):
            time.sleep(600)
