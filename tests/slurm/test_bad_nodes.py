"""A node of a real Slurm that lacks something: one sentence, before anything starts, and nothing is left.

The node has a mount namespace of its own, in which a folder is empty. Its clock is this machine's: by a
made-up Slurm in tests/launcher/test_preflight.py.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.slurm.cluster import BAD, Cluster, without
from tests.slurm.support import assert_nothing_left, said, sweep, wait_for

pytestmark = pytest.mark.slow  # make test-slurm


@pytest.fixture(scope="module", autouse=True)
def _own_mounts(tmp_path_factory) -> None:
    tried = [*without([tmp_path_factory.mktemp("hidden")]), "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be hidden from a node here: {done.stderr.strip()}")


@pytest.fixture(scope="module", autouse=True)
def unseen(cluster: Cluster, _own_mounts, tmp_path_factory) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A sweep whose runs are in another place for the node; the others go on while it waits for an answer."""
    runs = tmp_path_factory.mktemp("unseen")
    driver = asked(cluster, runs, [runs])
    state = ("squeue", "--noheader", "--states=failed", f"--nodelist={BAD}")
    wait_for(lambda: cluster.call(*state), runs)
    yield driver, runs
    cluster.kill_node(BAD)


def asked(cluster: Cluster, runs: Path, hidden: Sequence[Path], *more: str) -> subprocess.Popen:
    """A sweep on a node from which this is hidden."""
    cluster.restart_node(BAD, hidden)
    return sweep(runs, cluster.env, "engine=slurm", "engine.slurm.partition=bad", *more)


def refuses(cluster: Cluster, driver: subprocess.Popen, runs: Path, sentence: str) -> None:
    assert driver.wait(60) == 2, said(runs)
    assert sentence in said(runs).splitlines()[-1]
    assert "Traceback" not in said(runs)
    assert_nothing_left(cluster, runs)


def test_a_node_without_python(cluster, tmp_path):
    driver = asked(cluster, tmp_path, [Path(sys.prefix)])
    refuses(cluster, driver, tmp_path, f"{sys.executable} cannot run the harness on a node (")
    assert "python: No such file or directory). Install it where every node sees it" in said(tmp_path)


def test_a_node_without_jax(cluster, tmp_path):
    found = importlib.util.find_spec("jax")
    assert found is not None
    assert found.origin is not None
    driver = asked(cluster, tmp_path, [Path(found.origin).parent])
    refuses(cluster, driver, tmp_path, f"{sys.executable} cannot import jax.numpy (")


def test_a_node_without_the_data(cluster, tmp_path):
    corpus = tmp_path / "data" / "corpus.txt"
    corpus.parent.mkdir()
    corpus.write_text("\n<|endoftext|>\n".join(f"Document {n} says {n * n}." for n in range(2000)))
    source = f"data.sources.prose.path={corpus}"
    (runs := tmp_path / "runs").mkdir()
    driver = asked(cluster, runs, [corpus.parent], source, "evaluation.tokens=1024")
    refuses(cluster, driver, runs, f"{corpus} is not there. Put the data where every node sees it")


def test_a_node_that_does_not_see_the_runs(cluster, unseen):
    driver, runs = unseen
    refuses(
        cluster,
        driver,
        runs,
        "/workers is not shared: the test job should have written a file there, but none appeared"
        " (Slurm could not",
    )
    assert "Choose a folder that every node sees, with runs=..." in said(runs)
