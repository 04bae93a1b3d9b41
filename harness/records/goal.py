"""How far a run is to be trained for now: to a look, or to its end.

The driver writes it before it starts a worker; the worker reads it once. Without one a run is trained
to its end.
"""

from __future__ import annotations

from harness.records.atomic import read_json, write_json
from harness.records.layout import RunDir

END = 1.0


def write_goal(run: RunDir, share: float) -> None:
    """Train until the cooldown branch that ends at this share of the tokens is there; 1: to the end."""
    if share < END:
        write_json(run.goal, {"share": share})
    else:
        run.goal.unlink(missing_ok=True)


def read_goal(run: RunDir) -> float:
    content = read_json(run.goal)
    return float(content["share"]) if isinstance(content, dict) else END
