"""The plain Hydra entry: `python -m harness.train [-m] OVERRIDES`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.cli.exit_status import FAILED, INTERRUPTED, exit_status
from harness.cli.verb_parser import VerbParser
from harness.core.errors import printable


def main(arguments: Sequence[str] | None = None, parser: VerbParser | None = None) -> int:
    """Train one run, or with `-m` a sweep. Return 0 whatever the verdict, 1 if runs failed for good, 2 for
    a user's mistake, 130 when interrupted. `parser` explains an unknown option."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    return exit_status(lambda: _train(words, parser or VerbParser("train", "", "")), "runs")


def _train(words: Sequence[str], parser: VerbParser) -> int:
    from harness.cli.hydra_jobs import RunFailed
    from harness.cli.train_one import train_single
    from harness.config.compose import run_hydra
    from harness.launcher.sweep_lock import Interrupted

    parser.check_hydra_options(words)
    try:
        run_hydra(words, train_single)
    except RunFailed as error:
        print(printable(error), file=sys.stderr)
        return FAILED
    except (Interrupted, KeyboardInterrupt):
        print("Stopped. The same command continues.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
