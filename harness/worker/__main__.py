"""The worker as a process of its own: `python -m harness.worker RUN_DIR...` (harness.worker.main)."""

import sys

from harness.worker.main import command

if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
