"""Process that builds shards beside others.

`python -m harness.data.tokenizing.helper_process JOB.json PARENT` prints a line for each portion of text
(`+ CHARACTERS`) and one for an error (`! SENTENCE`). It ends with the process that has started it; its exit
status is that of a full disk if the disk was full.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from harness.core.errors import UserError
from harness.data.tokenizing.claims import build_pieces
from harness.data.tokenizing.disk_room import FULL_DISK
from harness.data.tokenizing.job_file import ERROR, PORTION, read_job


def main(path: str, parent: int) -> int:
    """Build pieces of the job until all are there, or until the process `parent` has ended. Return the exit
    status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        build_pieces(read_job(Path(path)), _reporter(parent))
    except UserError as error:
        print(ERROR, json.dumps(str(error)), flush=True)
        return 1
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return errno.ENOSPC
    return 0


def _reporter(parent: int) -> Callable[[int], None]:
    """Return a function that prints progress, and ends this process once its parent has ended."""

    def alive(characters: int) -> None:
        if os.getppid() != parent:
            sys.exit(1)
        if characters:
            print(PORTION, characters, flush=True)

    return alive


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
