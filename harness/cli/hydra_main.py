"""The plain Hydra entry: `python -m harness.train [-m] OVERRIDES`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from harness.core.errors import UserError, disk_error

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130  # exit statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run, or with `-m` a sweep. Return 0 whatever the verdict, 1 if runs failed for good, 2 for
    a user's mistake, 130 when interrupted."""
    from harness.cli.hydra_jobs import RunFailed
    from harness.cli.train_one import train_single
    from harness.config.compose import run_hydra
    from harness.launcher.sweep_lock import Interrupted

    def train() -> int:
        try:
            run_hydra(sys.argv[1:] if arguments is None else arguments, train_single)
        except RunFailed as error:
            print(error, file=sys.stderr)
            return FAILED
        except Interrupted:
            print("Stopped. The same command continues.", file=sys.stderr)
            return INTERRUPTED
        return 0

    return exit_status(train, "runs")


def exit_status(call: Callable[[], int], place: str) -> int:
    """Return what `call` returns. Print a UserError, or an error of the disk at `place`, and return 2."""
    try:
        return call()
    except UserError as error:
        message = error
    except OSError as error:
        message = disk_error(error, place)
        if message is None:
            raise
    print(message, file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
