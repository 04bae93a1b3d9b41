"""`harness tokenize` as an array of tasks of a real Slurm: they share the work, and nothing is done twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.data.small_shards import built_shards, said, shard_hashes, start, wait_for, write_text
from tests.slurm.cluster import Cluster, processes

pytestmark = pytest.mark.slow  # make test-slurm
BYTES = 12 << 20
TASKS = ("engine=slurm", "--tasks", "3", "--processes", "1")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", BYTES)


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory) -> Path:
    """A cache that one process has filled."""
    folder = tmp_path_factory.mktemp("alone")
    assert start(folder, text, {}, "--processes", "1").wait(200) == 0, said(folder)
    return folder / "cache"


def live_jobs(cluster: Cluster) -> list[str]:
    return [*cluster.jobs()]


def drafts(folder: Path) -> list[Path]:
    return [*(folder / "cache" / "tokens").glob("*.building/built")]


def test_an_array_of_three_tasks_tokenises_together(cluster, text, alone, tmp_path):
    driver = start(tmp_path, text, cluster.env, *TASKS)
    assert driver.wait(300) == 0, said(tmp_path)
    cache = tmp_path / "cache"
    assert shard_hashes(cache) == shard_hashes(alone)
    assert len(built_shards(cache)) == len({*built_shards(cache)}) == BYTES // 2**20 + 1
    logs = [*cache.glob("tasks/*/task?.log")]
    assert len(logs) == 3
    assert sum("tokenising own" in log.read_text() for log in logs) > 1, "one task did it all"
    assert "training and" in said(tmp_path).splitlines()[-1]
    began = time.monotonic()
    assert start(tmp_path, text, cluster.env, *TASKS).wait(60) == 0
    assert time.monotonic() - began < 20
    assert live_jobs(cluster) == []


def test_ctrl_c_cancels_the_tasks_and_the_same_command_continues(cluster, text, alone, tmp_path):
    driver = start(tmp_path, text, cluster.env, *TASKS)
    wait_for(lambda: drafts(tmp_path), tmp_path)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(90) == 130, said(tmp_path)
    assert said(tmp_path).splitlines()[-1] == "Stopped. The same command continues."
    wait_for(lambda: not live_jobs(cluster), tmp_path)
    assert processes(f"SLURM_CONF={cluster.env['SLURM_CONF']}", "SLURM_JOB_NUM_NODES=1") == []
    assert start(tmp_path, text, cluster.env, *TASKS).wait(300) == 0, said(tmp_path)
    assert shard_hashes(tmp_path / "cache") == shard_hashes(alone)
    assert len(built_shards(tmp_path / "cache")) == len({*built_shards(tmp_path / "cache")})


def test_tasks_that_are_left_alone_are_found_again(cluster, text, alone, tmp_path):
    assert start(tmp_path, text, cluster.env, *TASKS, "--no-wait").wait(120) == 0, said(tmp_path)
    assert "3 tasks are submitted" in said(tmp_path)
    jobs = {*live_jobs(cluster)}
    assert start(tmp_path, text, cluster.env, *TASKS).wait(300) == 0, said(tmp_path)
    assert shard_hashes(tmp_path / "cache") == shard_hashes(alone)
    assert len([*(tmp_path / "cache").glob("tasks/*/jobs-*.sh")]) == 1, f"other jobs than {jobs}"


def test_a_bad_document_is_one_sentence_of_the_task_that_met_it(cluster, tmp_path):
    text = write_text(tmp_path / "text.txt", 3 << 20)
    with text.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"\xff")
    assert start(tmp_path, text, cluster.env, *TASKS).wait(200) == 2
    assert said(tmp_path).splitlines()[-1].endswith("is not UTF-8: convert it")
    wait_for(lambda: not live_jobs(cluster), tmp_path)
