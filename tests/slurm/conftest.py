"""One Slurm for all proofs, and what an undisturbed sweep of the local engine left."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.paths import SweepDir
from tests.slurm.cluster import Cluster, Unavailable, packages
from tests.slurm.support import TOGETHER, said, sweep


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    try:
        root = packages()
    except Unavailable as reason:
        pytest.skip(f"Slurm cannot be had here: {reason}")
    made = Cluster(root, tmp_path_factory.mktemp("slurm") / "cluster")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def calm(tmp_path_factory) -> SweepDir:
    return _undisturbed(tmp_path_factory.mktemp("calm"), "engine.isolation=block")


@pytest.fixture(scope="session")
def calm_together(tmp_path_factory) -> SweepDir:
    """Of two processes a run."""
    return _undisturbed(tmp_path_factory.mktemp("calm_together"), *TOGETHER)


def _undisturbed(runs: Path, *options: str) -> SweepDir:
    driver = sweep(runs, {}, "engine=local", *options)
    assert driver.wait(300) == 0, said(runs)
    return SweepDir(runs / "attention")
