"""`harness tokenize` as tasks of a real Ray of two nodes: they share the work, and nothing is done twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.small_shards import built_shards, said, shard_hashes, start, wait_for, write_text
from tests.ray.cluster import actors, add_node, groups, ray_cluster

pytestmark = pytest.mark.slow  # make test-ray
BYTES = 12 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", BYTES)


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory) -> Path:
    """A cache that one process has filled."""
    folder = tmp_path_factory.mktemp("alone")
    assert start(folder, text, {}, "--processes", "1").wait(200) == 0, said(folder)
    return folder / "cache"


def by_tasks(cluster: Any, folder: Path, text: Path, *options: str) -> subprocess.Popen:
    engine = ("engine=ray", f"engine.ray.address={cluster.address}")
    return start(folder, text, {}, *engine, "--tasks", "3", "--processes", "1", *options)


def assert_done(cluster: Any, folder: Path, alone: Path) -> None:
    cache = folder / "cache"
    assert shard_hashes(cache) == shard_hashes(alone)
    assert len(built_shards(cache)) == len({*built_shards(cache)})
    assert_nothing_left(cluster, folder)


def assert_nothing_left(cluster: Any, folder: Path) -> None:
    wait_for(lambda: actors(cluster) == groups(cluster) == [], folder, 30)


def begins(folder: Path) -> None:
    """Wait until a shard is built."""
    wait_for(lambda: [*(folder / "cache" / "tokens").glob("*.building/built")], folder)


def test_three_tasks_tokenise_together(cluster, text, alone, tmp_path):
    assert by_tasks(cluster, tmp_path, text).wait(300) == 0, said(tmp_path)
    assert_done(cluster, tmp_path, alone)
    logs = [*(tmp_path / "cache").glob("tasks/*/task?.log")]
    assert sum("tokenising own" in log.read_text() for log in logs) > 1, "one task did it all"


def test_a_lost_node_costs_its_shards_in_the_making(cluster, text, alone, tmp_path):
    driver = by_tasks(cluster, tmp_path, text)
    begins(tmp_path)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    add_node(cluster)
    assert driver.wait(300) == 0, said(tmp_path)
    assert_done(cluster, tmp_path, alone)


def test_ctrl_c_ends_the_tasks_and_the_same_command_continues(cluster, text, alone, tmp_path):
    driver = by_tasks(cluster, tmp_path, text)
    begins(tmp_path)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(90) == 130, said(tmp_path)
    assert_nothing_left(cluster, tmp_path)
    assert by_tasks(cluster, tmp_path, text).wait(300) == 0, said(tmp_path)
    assert_done(cluster, tmp_path, alone)
