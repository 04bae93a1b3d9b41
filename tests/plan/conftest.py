"""A sweep on disk that a plan may name as evidence."""

import os

import pytest

from tests.compare.synthetic import Recipe, write_sweep

PAIR = {"mha": 1.0, "delta_hybrid": 1.05}
SIZES = {"xs": 10**7, "s": 3 * 10**7, "m": 10**8}


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """Writes a sweep of pairs, for which nobody waits to reach the disk, and gives its path."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "runs" / "pairs"

    def write(edit=None, **changed) -> str:
        given = {"variants": PAIR, "scales": SIZES, "with_steps": False, "steps": 16} | changed
        write_sweep(path, Recipe(**given), edit)
        return str(path)

    return write
