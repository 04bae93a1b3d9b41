"""A module run as a process that the kernel kills when the actor that started it dies.

Otherwise `python -m harness.launcher.engines.ray.parent_death MODULE ARGUMENT...` does the same as
`python -m MODULE ARGUMENT...`.
"""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys

PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux: the signal is sent when the thread that started this process ends."""


def main(module: str) -> None:
    """Run `module` as `__main__` after asking for SIGKILL at the parent's death."""
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    del sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
