"""How far a run is to be trained for now: to a look, or to its end.

The driver writes it before it starts a worker; the worker reads it once. Without one a run is trained
to its end.
"""

from __future__ import annotations

from harness.core.atomic_files import CorruptFile, read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir

END = 1.0


def write_target(run: RunDir, share: float) -> None:
    """Train until the cooldown branch that ends at this share of the tokens is there; 1: to the end."""
    if share < END:
        write_checksummed_json(run.training_target, {"share": share})
    else:
        run.training_target.unlink(missing_ok=True)


def read_target(run: RunDir) -> float:
    """Raises Damaged where it is damaged: a run must not be trained past its look."""
    content = read_checksummed_json(run.training_target)
    if content is None and run.training_target.exists():
        raise CorruptFile(f"{run.training_target} is damaged; the same command writes it again")
    return float(content["share"]) if content else END
