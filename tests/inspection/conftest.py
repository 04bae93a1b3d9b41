"""Tiny runs, trained once for all questions that are asked of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.records.paths import RunDir
from harness.records.run.status import State
from tests.training.conftest import without_compilation_cache  # noqa: F401
from tests.training.runs import prepare, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("probe")


def trained(folder: Path, *overrides: str) -> RunDir:
    run = prepare(folder, *overrides)
    assert train(run) is State.finished
    return run


@pytest.fixture(scope="module")
def one(folder) -> RunDir:
    """30 steps, with checkpoints at 8, 13, 16, 24, 30 and a branch from 13 to 15."""
    return trained(folder)


@pytest.fixture(scope="module")
def other(folder) -> RunDir:
    """The same from another start, over the same examples."""
    return trained(folder, "seed=1", "data_seed=0")


@pytest.fixture(scope="module")
def gqa(folder) -> RunDir:
    return trained(
        folder, "variant=gqa", "model.heads=2", "model.width=32", "model.attention.options.kv_heads=1"
    )


@pytest.fixture
def copied(tmp_path):
    """A run as it stands, in another sweep: free to be spoilt."""

    def copy(run: RunDir) -> RunDir:
        path = tmp_path.joinpath("copy", *run.path.parts[-3:])
        shutil.copytree(run.path, path)
        return RunDir(path)

    return copy
