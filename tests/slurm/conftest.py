"""One Slurm for all proofs, and what an undisturbed sweep of the local engine left."""

from __future__ import annotations

import pytest

from harness.records.layout import SweepDir
from tests.slurm.cluster import Cluster, Unavailable, packages
from tests.slurm.support import said, sweep


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
    runs = tmp_path_factory.mktemp("calm")
    driver = sweep(runs, {}, "engine=local", "engine.isolation=block")
    assert driver.wait(300) == 0, said(runs)
    return SweepDir(runs / "attention")
