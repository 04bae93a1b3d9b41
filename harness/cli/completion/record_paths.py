"""Paths of sweeps and runs that begin like a word: folders on the way to them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from argcomplete.completers import DirectoriesCompleter

from harness.records.paths import RunDir, SweepDir

RUNS = Path("runs")
"""Folder of the sweeps, unless `runs=` names another."""


def sweeps(prefix: str, **_: object) -> list[str]:
    """Complete the path of a sweep: those in runs/, and folders elsewhere."""
    folders = [SweepDir(path) for path in _folders(RUNS)]
    paths = [str(sweep.path) for sweep in folders if sweep.ledger.exists() or sweep.rule.exists()]
    return _matching(paths, prefix) or _matching(DirectoriesCompleter()(prefix), prefix)


def runs(prefix: str, **_: object) -> list[str]:
    """Complete the path of a run: its sweep, then scale and variant, then the seed."""
    parent = Path(prefix.rpartition("/")[0] or ".")
    if parent == Path():
        return [f"{path}/" for path in sweeps(prefix)]
    names = [f"{path}/" if not RunDir(path).run.exists() else str(path) for path in _folders(parent)]
    return _matching(names, prefix)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.name.startswith("."))


def _matching(paths: Iterable[str], prefix: str) -> list[str]:
    """Return the paths that begin so; hidden ones only where the prefix is hidden too."""
    return [path for path in paths if path.startswith(prefix) and path[len(prefix) :][:1] != "."]
