"""A plan asked for from Python."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.api.child_command import check_overrides, run_command
from harness.report.opened_plan import OpenedPlan


def plan(overrides: Sequence[str]) -> OpenedPlan:
    """Predict the memory, layout and time of each run, on this machine or on a described cluster. Trains and
    writes nothing.

    overrides: those of `harness plan`, such as `["experiment=colossus2", "cluster=colossus2"]`.
    Raises UserError with the sentence of the command if it refuses them.
    """
    words, lines = check_overrides("harness.plan", overrides), []
    run_command(["plan", "--json", *words], lines.append)
    return OpenedPlan(json.loads("\n".join(lines)))
