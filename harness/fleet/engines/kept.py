"""A worker that its keeper started: it holds its runs, and ends with its keeper: nobody else would end it.

`python -m harness.fleet.engines.kept MODULE RUN_DIR...` calls `MODULE.main(runs, {})`.
"""

from __future__ import annotations

import ctypes
import importlib
import signal
import sys
from pathlib import Path

from harness.fleet.engines import HELD
from harness.records.claim import claim
from harness.records.layout import RunDir

PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux."""


def main(module: str, *runs: str) -> int:
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    if not all(claim(RunDir(Path(run)).claim) for run in runs):
        return HELD
    return importlib.import_module(module).main([*runs], {})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
