"""The plain Hydra entry: `python -m harness.train [-m] OVERRIDES`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.core.errors import UserError, disk_error

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run, or with `-m` a sweep. Exit status 0 whatever the verdict, 1 if runs failed for
    good, 2 for a user's mistake, 130 when interrupted."""
    from harness.cli.hydra_jobs import RunFailed
    from harness.cli.train_one import train_single
    from harness.config.compose import run_hydra
    from harness.launcher.sweep_lock import Interrupted

    try:
        run_hydra(sys.argv[1:] if arguments is None else arguments, train_single)
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if (trouble := disk_error(error, "runs")) is None:
            raise
        print(trouble, file=sys.stderr)
        return USER_ERROR
    except RunFailed as error:
        print(error, file=sys.stderr)
        return FAILED
    except Interrupted:
        print("stopped; the same command continues", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
