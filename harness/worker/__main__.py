"""Command of a worker process: `python -m harness.worker RUN_DIR...` (harness.worker.main)."""

import sys

from harness.worker.main import command

if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
