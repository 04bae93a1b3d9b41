"""Paired A/B training and honest comparison of loss curves.

`harness.sweep(overrides)` trains a sweep and returns it with its verdict, `harness.plan(overrides)` predicts
what it takes. `harness.open_sweep(path)` reads a sweep as polars frames, `harness.open_curves(paths)` the
logs of any trainer; `harness.diff(a, b)` compares two checkpoints; `harness.compare` holds the statistics
over arrays. A mistake is a `harness.UserError`. Modules are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.core import loaded_code

loaded_code.install()

from harness import moved  # noqa: E402  (its code is recorded as well)

if TYPE_CHECKING:
    from harness.api.request_plan import plan
    from harness.api.run_sweep import sweep
    from harness.core.errors import UserError
    from harness.inspection.diff.diff_checkpoints import diff
    from harness.report.open_curves import open_curves
    from harness.report.open_sweep import open_sweep

__all__ = ["UserError", "diff", "open_curves", "open_sweep", "plan", "sweep"]

PLACES = {
    "UserError": "harness.core.errors",
    "diff": "harness.inspection.diff.diff_checkpoints",
    "open_curves": "harness.report.open_curves",
    "open_sweep": "harness.report.open_sweep",
    "plan": "harness.api.request_plan",
    "sweep": "harness.api.run_sweep",
}
"""Module of each name. Once the room `harness.plan` is imported, `plan` is the room, which can be called."""

moved.install()


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(importlib.import_module(PLACES[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
