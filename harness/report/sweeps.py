"""Finding the sweep that a user names."""

from __future__ import annotations

from pathlib import Path

from harness.config.errors import UserError, nearest
from harness.records.layout import SweepDir


def find_sweep(path: Path | str) -> SweepDir:
    """The sweep directory at a path. Raises UserError, with the nearest one below runs/, if there is none."""
    sweep = SweepDir(Path(path))
    if not any(sweep.runs()):
        beside = sorted(str(each.parent) for each in Path().glob("runs/*/rule.json"))
        way_out = nearest(str(path), beside) if beside else "`harness sweep` makes one"
        raise UserError(f"{path}: no sweep lies there; {way_out}")
    return sweep
