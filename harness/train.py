"""The command of plain Hydra: `python -m harness.train [-m] OVERRIDES` (harness.cli.hydra_main)."""

import sys

from harness.cli.hydra_main import main

if __name__ == "__main__":
    sys.exit(main())
