"""Helper processes of a build, one for each core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.tokenizing.job_file import ERROR

ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""One thread for each helper process: they share the cores by pieces."""


@dataclass
class HelperPool:
    """Helper processes at work, and what they have printed."""

    processes: list[subprocess.Popen[str]]
    errors: list[str] = field(default_factory=list)
    """Sentences for the user."""
    counts: list[int] = field(default_factory=list)
    """Characters of each portion that was encoded."""

    def is_working(self) -> bool:
        """Return whether a process works, and none has met an error."""
        return not self.errors and any(process.poll() is None for process in self.processes)

    def read(self, process: subprocess.Popen[str]) -> None:
        """Take what a process prints, until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            kind, _, content = line.partition(" ")
            if kind == ERROR:
                self.errors.append(json.loads(content))
            else:
                self.counts.append(int(content))


@contextmanager
def helper_processes(spec: Path, count: int) -> Iterator[HelperPool]:
    """Start helper processes for a job. They end with the block, at once after an error."""
    program = [sys.executable, "-P", "-m", "harness.data.tokenizing.helper_process"]
    command, environment = [*program, str(spec), str(os.getpid())], os.environ | ENVIRONMENT
    pool = HelperPool(
        [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(count)]
    )
    threads = [threading.Thread(target=pool.read, args=(process,), daemon=True) for process in pool.processes]
    for thread in threads:
        thread.start()
    try:
        yield pool
    finally:
        for process in pool.processes:
            if pool.errors or sys.exc_info()[0]:
                process.kill()
            process.wait()
        for thread in threads:
            thread.join()
