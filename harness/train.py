"""The command of plain Hydra: `python -m harness.train [-m] OVERRIDES` (harness.cli.hydra_main)."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which `-m` puts before the standard library
    from harness.cli.hydra_main import main

    sys.exit(main())
