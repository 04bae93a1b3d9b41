"""Clusters that are made up."""

from __future__ import annotations

import pytest

from harness.config.engines import RayConfig
from harness.fleet.engines import ray, ray_cluster
from harness.fleet.engines.ray import RayEngine
from tests.fleet.fake_ray import FakeRay, order
from tests.fleet.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(monkeypatch) -> FakeSlurm:
    monkeypatch.setattr("harness.fleet.engines.slurm_queue.FRESH", 0.05)
    return FakeSlurm()


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    monkeypatch.setattr(ray, "FRESH", 0.0)
    knock = ray_cluster._knock
    monkeypatch.setattr(ray_cluster, "_knock", lambda *given: given[0] == "head:1" or knock(*given))
    monkeypatch.setattr(ray_cluster, "_speaks_http2", lambda address: True)
    return FakeRay()


@pytest.fixture
def engine(tmp_path, fake) -> RayEngine:
    made = RayEngine(RayConfig(), tmp_path, ray=fake)
    made.check([order(tmp_path)], [], print)
    return made
