"""A module as a process that ends with its keeper, since nobody else would end it.

`python -m harness.launcher.engines.ray.parent_death MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...`,
but for that.
"""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys

PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux: sent when the thread that started this process ends."""


def main(module: str) -> None:
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    del sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
