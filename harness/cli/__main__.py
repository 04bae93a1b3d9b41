"""Entry point of `python -m harness.cli`, which is `python -m harness`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder, which `-m` puts before the standard library

from harness.cli import main

sys.exit(main())
