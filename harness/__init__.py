"""Paired A/B training and honest comparison of loss curves.

`harness.open_sweep(path)` reads a sweep as polars frames, `harness.open_curves(paths)` the logs of any
trainer; `harness.diff(a, b)` compares two checkpoints; `harness.compare` holds the statistics over arrays.
Modules are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core import loaded_code

loaded_code.install()

from harness import moved  # noqa: E402  (its code is recorded as well)

if TYPE_CHECKING:
    from harness.inspection.diff.diff_checkpoints import diff
    from harness.report.open_curves import open_curves
    from harness.report.open_sweep import open_sweep

__all__ = ["diff", "open_curves", "open_sweep"]

moved.install()


def __getattr__(name: str) -> Any:
    if name == "open_sweep":
        from harness.report.open_sweep import open_sweep

        return open_sweep
    if name == "open_curves":
        from harness.report.open_curves import open_curves

        return open_curves
    if name == "diff":
        from harness.inspection.diff.diff_checkpoints import diff

        return diff
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
