"""Clusters that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.schema.engine import RayConfig
from harness.launcher.cost import launch_conditions
from harness.launcher.engines.ray import ray_cluster
from harness.launcher.engines.ray import ray_engine as ray
from harness.launcher.engines.ray.ray_engine import RayEngine
from tests.launcher.fake_ray import FakeRay, order
from tests.launcher.fake_slurm import FakeSlurm


@pytest.fixture(autouse=True, scope="session")
def core_to_itself():
    """Give every launch a core at once. A launch beside others times a thread for a second, and the tests of
    the other worker are such others: over a hundred launches that was most of the time of this room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch_conditions, "share_of_a_core", lambda: 1.0)
        yield


@pytest.fixture
def slurm(monkeypatch) -> FakeSlurm:
    monkeypatch.setattr("harness.launcher.engines.slurm.queue.REFRESH_SECONDS", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # a job finds the fake worker there
    return FakeSlurm()


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    monkeypatch.setattr(ray, "REFRESH_SECONDS", 0.0)
    knock = ray_cluster._try_connect
    monkeypatch.setattr(ray_cluster, "_try_connect", lambda *given: given[0] == "head:1" or knock(*given))
    monkeypatch.setattr(ray_cluster, "_speaks_http2", lambda address: True)
    return FakeRay()


@pytest.fixture
def engine(tmp_path, fake) -> RayEngine:
    made = RayEngine(RayConfig(), tmp_path, ray=fake)
    made.check([order(tmp_path)], [], print)
    return made
