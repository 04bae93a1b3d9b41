"""Training target of a run, `goal.json`: an interim look, or the end if the file is missing.

The driver writes it before it starts a worker, and the worker reads it once.
"""

from __future__ import annotations

from typing import Any

from harness.core.atomic_files import CorruptFile, read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir
from harness.records.typed_values import fits

END = 1.0


def write_target(run: RunDir, share: float) -> None:
    """Set the share of the tokens whose cooldown branch ends this part of training; 1: the whole run."""
    if share < END:
        write_checksummed_json(run.training_target, {"share": share})
    else:
        run.training_target.unlink(missing_ok=True)


def read_target(run: RunDir) -> float:
    """Return the share. Raises CorruptFile, because a run must not be trained past its look."""
    content = read_checksummed_json(run.training_target)
    share: Any = content.get("share") if content else END
    if not fits(share, float) or (content is None and run.training_target.exists()):
        raise CorruptFile(f"{run.training_target} is damaged. Repeat the command to write it again.")
    return float(share)
